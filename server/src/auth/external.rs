//! An external authorizer: an HTTP service of the operator's that says yes or no.
//!
//! In:  `POST url` (or GET) without a body, with Authorization as the backend showed it, X-Forwarded-For, one
//!      `2ptth-host` for each host that it wants, `2ptth-name` for a dynamic name.
//! Out: 2xx is yes, for exactly the hosts or the name that were asked about. `2ptth-subject` in the answer says
//!      the principal is; otherwise each Authorization is a principal of its own. No answer is remembered: the
//!      authorizer is asked for each tunnel.
//!
//! Invariant: the address is the configuration's, whatever a backend or a redirect says; no answer,
//! and no proper one, is a refusal.

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::response::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use ptth_link::settings::{Mistake, Parser, TIME};
use serde::{Deserialize, Deserializer};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::authorization;
use super::credential::{Checking, Claim, Credential, Pass, Probing, Refusal};
use super::secret::{Files, Secret, ensure};
use crate::https::{HttpsClient, HttpsError, Server};
use crate::identity::Mark;

/// `external = { url = "https://auth.example.com/2ptth", timeout = "5s" }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// May have a secret of its own in its query, so no output shows it.
    url: Secret,
    /// For all of it: waiting for a permit, connecting, asking and the answer.
    #[serde(default, deserialize_with = "seconds")]
    timeout: Option<Duration>,
    #[serde(default)]
    method: Verb,
    /// The certificates by which the authorizer is known, PEM, instead of the system's.
    ca: Option<PathBuf>,
    /// Whether `http://` may leave this machine and its private network.
    #[serde(default)]
    allow_plain: bool,
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    SECONDS.deserialize(deserializer).map(Some)
}

/// How long an authorizer may take: backends wait that long for their answer, and hold a connection meanwhile.
const SECONDS: Parser<Duration> =
    Parser("a time of more than 0 and up to 60 seconds, like \"5s\"", |text| {
        // No exponent and no sign: a time here is a few seconds.
        let plain = Some(text.trim()).filter(|text| !text.contains(['e', 'E', '+']));
        let time = TIME.parse(plain.ok_or(None)?).map_err(|_| None)?;
        if time.is_zero() || time > LONGEST { Err(None) } else { Ok(time) }
    });

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    #[default]
    Post,
    Get,
}

impl Settings {
    pub(super) fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, Mistake> {
        // The URL isn't quoted: it may hold a secret.
        let why = "`external`: `url` must be like `https://auth.example.com/path`, without user or password";
        let (server, mut question) =
            Server::read(self.url.bytes()).ok_or_else(|| Mistake::new(why))?;
        if let Verb::Post = self.method {
            question.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            *question.method_mut() = Method::POST;
        }
        let tls = server.is_https();
        let why = "`external`: `ca` is for an `https://` URL only";
        ensure(self.ca.is_none() || tls, why)?;
        ensure(
            tls || self.allow_plain || !server.is_public(),
            "`external`: `http://` to a public address would show every credential on the way; use `https://`, or say `allow_plain = true`",
        )?;
        if !tls && self.allow_plain {
            files.warn(format!(
                "credentials go to the authorizer {server} unencrypted (`allow_plain`)"
            ));
        }
        let roots = self.ca.map(|path| files.roots(&path)).transpose()?;
        let failed = |err| Mistake::new(format!("`external`: TLS can't be set up: {err}"));
        Ok(Arc::new(External {
            mark: Mark::of("external", &[self.url.bytes()]),
            client: HttpsClient::new(server, roots, self.allow_plain).map_err(failed)?,
            question,
            timeout: self.timeout.unwrap_or(TIMEOUT),
            permits: Semaphore::new(MAX_AT_A_TIME),
        }))
    }
}

const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// Questions at a time. More would only queue at the authorizer, each with a socket of ours.
const MAX_AT_A_TIME: usize = 64;

struct External {
    client: HttpsClient,
    /// What all requests have in common. The target may hold a secret.
    question: Request<()>,
    timeout: Duration,
    permits: Semaphore,
    mark: Mark,
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "External({}, {:?})", self.client.server, self.timeout)
    }
}

impl Credential for External {
    fn check<'a>(&'a self, claim: &'a Claim<'a>) -> Checking<'a> {
        Box::pin(async {
            let shown = claim.authorization.ok_or(Refusal::Absent)?;
            let request = self.request(shown, claim).map_err(Refusal::Wrong)?;
            let asked = timeout(self.timeout, self.ask(&request)).await;
            let answer = asked.unwrap_or(Err("the authorizer is too slow"));
            let answer = answer.map_err(Refusal::Unavailable)?;
            match answer.status {
                status if status.is_success() => {
                    // Without a subject, principals are told apart by what they showed.
                    let subject = answer.headers.get("2ptth-subject").map(HeaderValue::as_bytes);
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

    /// A backend that passed isn't judged again as long as the same authorizer is asked.
    fn keeps(&self, mark: Mark) -> bool {
        self.mark == mark
    }

    fn is_abroad(&self) -> bool {
        true
    }

    fn probe(&self) -> Option<Probing<'_>> {
        Some(Box::pin(async {
            let asked = timeout(self.timeout, self.ask(&self.question)).await;
            let asked = asked.unwrap_or(Err("the authorizer is too slow"));
            asked.map(|head| head.status).map_err(str::to_owned)
        }))
    }

    fn challenge(&self) -> Option<&'static str> {
        // Only the authorizer knows what it takes; most take this.
        Some(authorization::BEARER)
    }
}

impl External {
    fn request(&self, shown: &HeaderValue, claim: &Claim<'_>) -> Result<Request<()>, &'static str> {
        let mut request = self.question.clone();
        let fields = request.headers_mut();
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| "a name that it wants can't be one")
        };
        let mut shown = shown.clone();
        shown.set_sensitive(true);
        fields.insert(AUTHORIZATION, shown);
        fields.insert("x-forwarded-for", value(&claim.address.to_canonical().to_string())?);
        if claim.hosts.len() > MAX_HOSTS {
            return Err("it wants more hosts than the authorizer can be asked about");
        }
        for host in claim.hosts {
            fields.append("2ptth-host", value(host)?);
        }
        if let Some(name) = claim.name {
            fields.insert("2ptth-name", value(name)?);
        }
        Ok(request)
    }

    /// Errors are texts for the gateway's log. They hold nothing that any peer sent.
    async fn ask(&self, request: &Request<()>) -> Result<Parts, &'static str> {
        let _permit =
            self.permits.acquire().await.map_err(|_| "the authorizer can't be asked any more")?;
        let asked = self.client.ask(request, &[], 0).await;
        asked.map(|(parts, _)| parts).map_err(|failure| match failure {
            HttpsError::Absent => "the authorizer isn't there",
            HttpsError::Unreachable => "the authorizer can't be reached",
            HttpsError::Public => {
                "the authorizer's name leads to a public address, and its URL is `http://`"
            }
            HttpsError::Untrusted => "the authorizer's certificate isn't trusted",
            HttpsError::Handshake => "the authorizer breaks the TLS handshake off",
            HttpsError::Answer => "the authorizer gives no proper answer",
        })
    }
}

/// As many as a registration may name.
const MAX_HOSTS: usize = 100;
