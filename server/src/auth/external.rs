//! An external authorizer: an HTTP service of the operator's that says yes or no.
//!
//! In:  `POST url` (or GET) without a body, with Authorization as the backend showed it, X-Forwarded-For, one
//!      `2ptth-host` for each host that it wants, `2ptth-name` for a dynamic name.
//! Out: 2xx is yes, for exactly the hosts or the name that were asked about. `2ptth-subject` in the answer says
//!      who it is; otherwise whoever shows another Authorization is another one. Nothing is remembered: each
//!      tunnel is asked for.
//!
//! Invariant: the address is the configuration's, whatever a backend or a redirect says; no answer,
//! and no proper one, is a refusal.

mod address;
mod ask;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use ptth_client::tls;
use ptth_link::settings::{As, Scalar};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::authorization;
use super::credential::{Checking, Claim, Credential, Pass, Refusal};
use super::secret::{Content, Files, LoadError, Secret};
use crate::identity::Mark;
use address::Address;

/// `external = { url = "https://auth.example.com/2ptth", timeout = "5s" }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// May have a secret of its own in its query, so no output shows it.
    url: Secret,
    /// For all of it: waiting for a place, connecting, asking and the answer.
    timeout: Option<As<Seconds>>,
    #[serde(default)]
    method: Verb,
    /// The certificates by which the authorizer is known, PEM, instead of the system's.
    ca: Option<PathBuf>,
    /// Whether `http://` may leave this machine and its private network.
    #[serde(default)]
    allow_plain: bool,
}

/// How long an authorizer may take: backends wait that long for their answer, and hold a connection meanwhile.
#[derive(Debug)]
struct Seconds(Duration);

impl Scalar for Seconds {
    const WANTED: &'static str = "a time of more than 0 and up to 60 seconds, like \"5s\"";

    fn read(text: &str) -> Result<Self, Option<String>> {
        // No exponent and no sign: a time here is a few seconds.
        let plain = Some(text.trim()).filter(|text| !text.contains(['e', 'E', '+']));
        let time = Duration::read(plain.ok_or(None)?)?;
        if time.is_zero() || time.as_secs_f64() > LONGEST { Err(None) } else { Ok(Self(time)) }
    }
}

/// How it is asked: some authorizers take GET alone.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Verb {
    #[default]
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "GET")]
    Get,
}

impl Settings {
    pub(super) fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, LoadError> {
        let address = Address::parse(self.url.bytes())?;
        let tls = match (address.tls, &self.ca) {
            (true, None) => Some(ask::connector(ask::system_roots())?),
            (true, Some(path)) => {
                let pem = files.text(path, |_| Content::Public)?;
                let roots = tls::roots(pem.as_bytes()).map_err(|why| LoadError::file(path, why))?;
                Some(ask::connector(Arc::new(roots.1))?)
            }
            (false, Some(_)) => {
                return Err(LoadError::settings("`external`: `ca` is for an `https://` URL only"));
            }
            (false, None) => None,
        };
        if !address.tls && !self.allow_plain && address.is_surely_public() {
            return Err(LoadError::settings(
                "`external`: `http://` to a public address would show every credential on the way; use `https://`, or say `allow_plain = true`",
            ));
        }
        if !address.tls && self.allow_plain {
            files.warn(format!(
                "credentials go to the authorizer {address} unencrypted (`allow_plain`)"
            ));
        }
        Ok(Arc::new(External {
            mark: Mark::of("external", &[self.url.bytes()]),
            address,
            timeout: self.timeout.map_or(TIMEOUT, |As(Seconds(time))| time),
            method: self.method,
            tls,
            anywhere: self.allow_plain,
            places: Semaphore::new(MAX_AT_A_TIME),
        }))
    }
}

/// Where the configuration doesn't say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// In seconds.
const LONGEST: f64 = 60.0;
/// Questions at a time. More would only queue at the authorizer, each with a socket of ours.
const MAX_AT_A_TIME: usize = 64;

struct External {
    address: Address,
    timeout: Duration,
    method: Verb,
    tls: Option<Arc<ClientConfig>>,
    /// Whether plain HTTP may go to public addresses.
    anywhere: bool,
    places: Semaphore,
    mark: Mark,
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External")
            .field("address", &self.address)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Credential for External {
    fn check<'a>(&'a self, claim: &'a Claim<'a>) -> Checking<'a> {
        Box::pin(async {
            let shown = claim.authorization.ok_or(Refusal::Absent)?;
            let request = self.request(shown, claim).map_err(Refusal::Wrong)?;
            let asked = timeout(self.timeout, self.ask(request)).await;
            let answer = asked.unwrap_or(Err("the authorizer is too slow"));
            let answer = answer.map_err(Refusal::Unavailable)?;
            match answer.status() {
                status if status.is_success() => {
                    // An authorizer that names nobody tells principals apart by what they showed.
                    let subject = answer.headers().get(SUBJECT).map(HeaderValue::as_bytes);
                    let subject = subject.filter(|subject| !subject.is_empty());
                    let words = subject.map_or([&[], shown.as_bytes()], |subject| [subject, &[]]);
                    Ok(Pass::of(self.mark).principal(&words))
                }
                // It says itself that it can't decide now. Told "no", a client would give up.
                status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                    Err(Refusal::Unavailable("the authorizer has a failure of its own"))
                }
                _ => Err(Refusal::Wrong("the authorizer says no")),
            }
        })
    }

    /// Whoever passed isn't judged again as long as the same authorizer is asked.
    fn keeps(&self, mark: Mark) -> bool {
        self.mark == mark
    }

    fn is_abroad(&self) -> bool {
        true
    }

    fn challenge(&self) -> Option<&'static str> {
        // What the authorizer takes is its own business; most take this.
        Some(authorization::BEARER)
    }
}

impl External {
    fn request(&self, shown: &HeaderValue, claim: &Claim<'_>) -> Result<Request<()>, &'static str> {
        let mut request = Request::new(());
        *request.uri_mut() = self.address.target.clone();
        let fields = request.headers_mut();
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| "a name that it wants can't be one")
        };
        fields.insert(HOST, self.address.authority.clone());
        let mut shown = shown.clone();
        shown.set_sensitive(true);
        fields.insert(AUTHORIZATION, shown);
        fields.insert(FORWARDED_FOR, value(&claim.address.to_canonical().to_string())?);
        if claim.hosts.len() > MAX_HOSTS {
            return Err("it wants more hosts than the authorizer can be asked about");
        }
        for host in claim.hosts {
            fields.append(WANTED_HOST, value(host)?);
        }
        if let Some(name) = claim.name {
            fields.insert(WANTED_NAME, value(name)?);
        }
        if let Verb::Post = self.method {
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            *request.method_mut() = Method::POST;
        }
        Ok(request)
    }

    async fn ask(&self, request: Request<()>) -> Result<Response<()>, &'static str> {
        let _place = self.places.acquire().await.map_err(|_| "nobody may be asked any more")?;
        let socket = ask::dial(&self.address).await?;
        match &self.tls {
            Some(tls) => {
                ask::converse(ask::secure(&self.address, tls, socket).await?, request).await
            }
            None if self.anywhere || ask::stays_near(&socket) => {
                ask::converse(socket, request).await
            }
            None => {
                Err("the authorizer's name leads to a public address, and its URL is `http://`")
            }
        }
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const WANTED_HOST: HeaderName = HeaderName::from_static("2ptth-host");
const WANTED_NAME: HeaderName = HeaderName::from_static("2ptth-name");
const SUBJECT: HeaderName = HeaderName::from_static("2ptth-subject");

/// As many as a registration may name.
const MAX_HOSTS: usize = 100;
