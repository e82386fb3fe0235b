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
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::BytesMut;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use ptth_client::config::OriginAddress;
use ptth_client::tls;
use ptth_link::crypto;
use ptth_link::h1::{self, ResponseReader};
use ptth_link::settings::{Mistake, Parser, TIME};
use ptth_link::tcp::is_near;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, version};
use serde::{Deserialize, Deserializer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::authorization;
use super::credential::{Checking, Claim, Credential, Pass, Refusal};
use super::secret::{Files, Secret, about, ensure};
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
        let Address { origin, name, port, mut question } =
            Address::read(self.url.bytes()).ok_or_else(|| Mistake::new(why))?;
        if let Verb::Post = self.method {
            question.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            *question.method_mut() = Method::POST;
        }
        let tls = matches!(origin, OriginAddress::Https { .. });
        let why = "`external`: `ca` is for an `https://` URL only";
        ensure(self.ca.is_none() || tls, why)?;
        let public = matches!(name, ServerName::IpAddress(address) if !is_near(address.into()));
        ensure(
            tls || self.allow_plain || !public,
            "`external`: `http://` to a public address would show every credential on the way; use `https://`, or say `allow_plain = true`",
        )?;
        if !tls && self.allow_plain {
            files.warn(format!(
                "credentials go to the authorizer {origin} unencrypted (`allow_plain`)"
            ));
        }
        Ok(Arc::new(External {
            mark: Mark::of("external", &[self.url.bytes()]),
            tls: tls.then(|| connector(self.ca, files)).transpose()?,
            address: Address { origin, name, port, question },
            timeout: self.timeout.unwrap_or(TIMEOUT),
            anywhere: self.allow_plain,
            permits: Semaphore::new(MAX_AT_A_TIME),
        }))
    }
}

fn connector(ca: Option<PathBuf>, files: &mut Files) -> Result<TlsConnector, Mistake> {
    // Read once in the process's life: each reload of the configuration asks for them.
    static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| tls::system_roots().into());
    let roots = match ca {
        None => SYSTEM.clone(),
        Some(path) => {
            let pem = files.text(&path)?;
            Arc::new(tls::roots(pem.as_bytes()).map_err(|why| about(&path, why))?.1)
        }
    };
    let tls = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|err| Mistake::new(format!("`external`: TLS can't be set up: {err}")))?;
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls).into())
}

const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// Questions at a time. More would only queue at the authorizer, each with a socket of ours.
const MAX_AT_A_TIME: usize = 64;

struct Address {
    origin: OriginAddress,
    /// What is dialled, and what the certificate is checked for.
    name: ServerName<'static>,
    port: u16,
    /// What all requests have in common. The target may hold a secret.
    question: Request<()>,
}

impl Address {
    fn read(url: &[u8]) -> Option<Self> {
        let uri = Uri::try_from(url).ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
        let origin = OriginAddress::parse(&format!("{scheme}://{authority}")).ok()?;
        let (OriginAddress::Https { host, port } | OriginAddress::Http { host, port }) = &origin
        else {
            return None;
        };
        let (name, port) = (ServerName::try_from(host.clone()).ok()?, *port);
        let target = uri.path_and_query().cloned();
        let target = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
        let question = Request::builder().uri(target).header(HOST, authority).body(()).ok()?;
        Some(Self { origin, name, port, question })
    }
}

struct External {
    address: Address,
    tls: Option<TlsConnector>,
    timeout: Duration,
    anywhere: bool,
    permits: Semaphore,
    mark: Mark,
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "External({}, {:?})", self.address.origin, self.timeout)
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

    fn challenge(&self) -> Option<&'static str> {
        // Only the authorizer knows what it takes; most take this.
        Some(authorization::BEARER)
    }
}

impl External {
    fn request(&self, shown: &HeaderValue, claim: &Claim<'_>) -> Result<Request<()>, &'static str> {
        let mut request = self.address.question.clone();
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
        let Address { name, port, .. } = &self.address;
        let socket = TcpStream::connect((&*name.to_str(), *port)).await;
        let socket = socket.map_err(|err| match err.kind() {
            io::ErrorKind::ConnectionRefused => "the authorizer isn't there",
            _ => "the authorizer can't be reached",
        })?;
        let Some(tls) = &self.tls else {
            // The name may lead anywhere, and change: what counts is where the socket ended.
            if self.anywhere || socket.peer_addr().is_ok_and(|peer| is_near(peer.ip())) {
                return converse(socket, request).await;
            }
            return Err(
                "the authorizer's name leads to a public address, and its URL is `http://`",
            );
        };
        let secured = tls.connect(name.clone(), socket).await;
        let secured =
            secured.map_err(|err| match err.get_ref().and_then(|err| err.downcast_ref()) {
                Some(rustls::Error::InvalidCertificate(_)) => {
                    "the authorizer's certificate isn't trusted"
                }
                _ => "the authorizer breaks the TLS handshake off",
            })?;
        converse(secured, request).await
    }
}

/// Sends the request and waits for the response's head. The rest is dropped with the connection.
async fn converse(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    request: &Request<()>,
) -> Result<Parts, &'static str> {
    let mut input = BytesMut::new();
    let reader = ResponseReader::within(MAX_HEAD, MAX_FIELDS);
    let answer = h1::ask(&mut io, request, (&mut input, reader)).await;
    Ok(answer.map_err(|_| "the authorizer gives no proper answer")?.parts)
}

/// As many as a registration may name.
const MAX_HOSTS: usize = 100;
/// A head of more is none that says yes or no.
const MAX_HEAD: usize = 16 << 10;
const MAX_FIELDS: usize = 100;
