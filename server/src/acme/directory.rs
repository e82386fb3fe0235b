//! The directory of an authority (RFC 8555 §7.1): how it is asked, and the account with it.
//!
//! Invariant: no server is dialled but the one that the operator named, whatever URLs the directory gives.

use std::error::Error as StdError;
use std::fs;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AccountCredentials, BodyWrapper, BytesResponse, Error, HttpClient, NewAccount,
};
use log::{info, warn};
use ptth_link::files;
use ptth_link::lock::Mutex;
use ptth_link::settings::Mistake;
use tokio::time::timeout;

use crate::auth::Files;
use crate::config::Issuer;
use crate::https::{HttpsClient, Server};

/// How long the directory wants to be left alone, by its last refusal.
pub(super) type RetryAfter = Arc<Mutex<Option<Duration>>>;

/// How a directory is reached: the product's way, or a test's.
pub(super) type Connect =
    Box<dyn Fn(&Issuer, RetryAfter) -> Result<Box<dyn HttpClient>, Mistake> + Send>;

/// The product's way. Blocks: it reads the certificates to know the directory by.
pub(super) fn connect(issuer: &Issuer, after: RetryAfter) -> Result<Box<dyn HttpClient>, Mistake> {
    let server = Server::read(issuer.directory.as_bytes());
    let (server, _) = server.ok_or_else(|| Mistake::new("the directory's URL is none"))?;
    let roots = issuer.ca.as_ref().map(|path| Files::new("").roots(path)).transpose()?;
    let failed = |err| Mistake::new(format!("TLS can't be set up: {err}"));
    let client = HttpsClient::new(server, roots, false).map_err(failed)?;
    Ok(Box::new(Directory { client: Arc::new(client), after }))
}

struct Directory {
    client: Arc<HttpsClient>,
    after: RetryAfter,
}

impl HttpClient for Directory {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (client, after) = (self.client.clone(), self.after.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(other)?.to_bytes();
            let url = parts.uri.to_string();
            let same = |it: &Server| it.to_string() == client.server.to_string();
            let asked = Server::read(url.as_bytes()).filter(|(server, _)| same(server));
            let (_, mut question) = asked.ok_or_else(|| other(ELSEWHERE))?;
            *question.method_mut() = parts.method;
            question.headers_mut().extend(parts.headers);
            question.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
            let asked = timeout(REQUEST, client.ask(&question, &body, LONGEST)).await;
            let (parts, body) = asked.map_err(|_| other(SLOW))?.map_err(other)?;
            if parts.status.is_client_error() || parts.status.is_server_error() {
                *after.lock() = wished(&parts.headers);
                // RFC 8555 §6.7: the words are in a document of this type. Else it isn't the directory that answers.
                let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
                if !kind.is_some_and(|kind| kind.starts_with(b"application/problem+json")) {
                    return Err(other(format!("it answers {}", parts.status.as_u16())));
                }
            }
            Ok(Response::from_parts(parts, Full::new(Bytes::from(body))).into())
        })
    }
}

fn other(why: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::Other(why.into())
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn wished(fields: &HeaderMap) -> Option<Duration> {
    let text = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok()
}

/// The account with the directory, which is made if there is none. Blocks now and then: it reads and writes a file.
pub(super) async fn account(issuer: &Issuer, http: Box<dyn HttpClient>) -> Result<Account, Error> {
    let path = issuer.folder.join(ACCOUNT);
    let kept = match fs::read(&path) {
        Ok(text) => parse(&text, &issuer.directory).or_else(|| {
            warn!("acme: the account in {} can't be used; a new one is made", path.display());
            None
        }),
        Err(err) if err.kind() == io::ErrorKind::NotFound => None,
        Err(err) => return Err(other(format!("{} can't be read ({err})", path.display()))),
    };
    let builder = Account::builder_with_http(http);
    if let Some(kept) = kept {
        return builder.from_credentials(kept).await;
    }
    let contact = issuer.email.iter().map(|email| format!("mailto:{email}")).collect::<Vec<_>>();
    let contact: Vec<_> = contact.iter().map(String::as_str).collect();
    // The operator agrees by --acme.
    let wanted = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, made) = builder.create(&wanted, issuer.directory.clone(), None).await?;
    let text = serde_json::to_string(&made)?;
    let failed = |err| other(format!("{} can't be written ({err})", path.display()));
    files::replace(&path, &text, true).map_err(failed)?;
    info!("acme: an account was made directory={}", issuer.directory);
    Ok(account)
}

fn parse(text: &[u8], directory: &str) -> Option<AccountCredentials> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let same = value.get("directory").and_then(|it| it.as_str()) == Some(directory);
    // From the text, since the crate borrows from what it reads.
    serde_json::from_slice(text).ok().filter(|_| same)
}

/// Takes the account away: the directory says that it has none such.
pub(super) fn forget(issuer: &Issuer) {
    let _ = fs::remove_file(issuer.folder.join(ACCOUNT));
}

const ACCOUNT: &str = "account.json";
const AGENT: &str = concat!("2ptth-server/", env!("CARGO_PKG_VERSION"));
const ELSEWHERE: &str = "it gives a URL of another server, which isn't asked";
const SLOW: &str = "it is too slow";
/// For one request, with the connection.
const REQUEST: Duration = Duration::from_secs(30);
/// A chain has a few kilobytes.
const LONGEST: usize = 256 << 10;
