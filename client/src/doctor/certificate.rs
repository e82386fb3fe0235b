//! TLS with the gateway: its certificate, the authority behind it, and both clocks.
//!
//! Invariant: nothing but a request for `/` goes to a gateway that isn't known.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use http::header::DATE;
use ptth_link::doctor::{Report, Verdict};
use ptth_link::lock::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{Config, Trust};
use crate::dial::{DialError, Network, version_text};
use crate::tls::{self, TlsError, how_verified};

use super::Patient;
use super::reach::{self, MTU, soon};

/// Says what the gateway shows, and what time it is there. Whether it is known; `None` where there is no connection.
pub(super) async fn look<N: Network>(patient: &Patient<N>, report: &mut Report) -> Option<bool> {
    let config = &patient.config;
    let mut dialled = match patient.visit().await {
        Ok(dialled) => dialled,
        Err(err) => {
            report.fail("tls", err.to_string(), remedy(&err));
            return None;
        }
    };
    let answer = soon(reach::head(&mut dialled.stream, config, 0)).await;
    let seen = patient.seen.lock().take();
    match &seen {
        None => report.skip("tls", "none: the gateway is an http:// one"),
        Some(seen) => {
            let (verdict, found, remedy) = judge(seen, config);
            let version = version_text(dialled.version);
            report.note("tls", verdict, format!("TLS {version}, {found}"), remedy);
        }
    }
    match answer {
        Ok(head) => clock(head.headers.get(DATE), report),
        Err(err) => report.skip("clock", format!("a request isn't answered: {err}")),
    }
    Some(seen.is_none_or(|seen| seen.verdict.is_ok()))
}

fn remedy(err: &DialError) -> &'static str {
    match err {
        DialError::NoTls => "correct the port",
        DialError::Proxy(..) => "correct HTTPS_PROXY, or add the gateway to NO_PROXY",
        DialError::Tls(err) if err.kind() == io::ErrorKind::TimedOut => MTU,
        _ => "",
    }
}

/// Compares this machine's clock with the gateway's, as its response tells it.
fn clock(date: Option<&HeaderValue>, report: &mut Report) {
    let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let Some(date) = date else { return report.skip("clock", "the gateway doesn't tell its time") };
    let now = SystemTime::now();
    let (off, how) = match now.duration_since(date) {
        Ok(off) => (off, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let found = format!("this machine's clock is {} s {how} the gateway's", off.as_secs());
    let remedy = "set this machine's clock (`timedatectl set-ntp true`), or the gateway's";
    match off.as_secs() {
        off if off <= NOTHING => {
            report
                .ok("clock", format!("this machine's and the gateway's agree within {NOTHING} s"));
        }
        off if off <= MUCH => report.warn("clock", found, remedy),
        _ => report.fail("clock", found, remedy),
    }
}

/// In seconds: what the way and the rounding may cost, and beyond what certificates and tokens aren't valid.
const NOTHING: u64 = 5;
const MUCH: u64 = 300;

/// What a gateway showed, and what the client would have said.
#[derive(Debug)]
pub(super) struct Seen {
    chain: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
    verdict: Result<(), Error>,
}

/// Takes any certificate, and remembers it.
#[derive(Debug)]
struct Recorder {
    knowing: Arc<dyn ServerCertVerifier>,
    seen: Place,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.knowing.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        let chain = [end_entity].into_iter().chain(intermediates);
        let chain = chain.map(|it| it.clone().into_owned()).collect();
        let verdict = verified.map(|_| ());
        *self.seen.lock() = Some(Seen { chain, name: name.to_owned(), verdict });
        Ok(ServerCertVerified::assertion())
    }

    ptth_link::verify_signatures!();
}

/// Where the certificate of the last connection is left.
pub(super) type Place = Arc<Mutex<Option<Seen>>>;

/// TLS as a visitor has it, for connections whose peer isn't believed.
pub(super) fn lenient(config: &Config) -> Result<(Arc<ClientConfig>, Place), TlsError> {
    let seen = Place::default();
    let recorder = Recorder { knowing: tls::verifier(&config.trust)?, seen: seen.clone() };
    Ok((tls::client(Arc::new(recorder), b"http/1.1", None, Arc::new(rustls::NoKeyLog))?, seen))
}

/// With what was found, and what to do.
type Judged = (Verdict, String, String);

fn judge(seen: &Seen, config: &Config) -> Judged {
    let parsed = seen.chain.first().and_then(|der| X509Certificate::from_der(der).ok());
    let Some((_, own)) = parsed else {
        return (Verdict::Fail, "its certificate can't be read".into(), String::new());
    };
    let (issuer, validity) = (own.issuer().to_string(), own.validity());
    let (begins, ends) = (validity.not_before, validity.not_after);
    let now = httpdate::fmt_http_date(SystemTime::now());
    let clock = format!("if this machine's clock is wrong, which says {now}, set it");
    let fail = |found: String, remedy: String| (Verdict::Fail, found, remedy);
    let Err(err) = &seen.verdict else {
        let found =
            format!("a certificate by {issuer:?} until {ends}, verified {}", how_verified(config));
        return match is_private(seen, config) {
            true => (
                Verdict::Warn,
                format!("{found}; this machine knows that authority, the public ones don't have it"),
                "something in between (a virus scanner, a company's proxy) may replace the certificate and read all: compare with the pin that the gateway prints".into(),
            ),
            false => (Verdict::Ok, found, String::new()),
        };
    };
    let Error::InvalidCertificate(why) = err else {
        return fail(format!("its certificate can't be checked: {err}"), String::new());
    };
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => fail(
            format!("the gateway's certificate expired on {ends}"),
            format!("renew it on the gateway; {clock}"),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => fail(
            format!("the gateway's certificate isn't valid before {begins}"),
            clock,
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => fail(
            format!("the gateway's certificate, by {issuer:?}, isn't for {:?}", config.host),
            "dial the gateway by a name of its certificate, or give that one by --host".into(),
        ),
        CertificateError::Other(why) => fail(
            why.0.to_string(),
            format!("compare with the pin that the gateway prints at its start: if that is another one than what was seen, something in between replaces the certificate (this one is by {issuer:?}); else give the new one"),
        ),
        _ => fail(
            format!("the gateway's certificate is by {issuer:?}, which isn't trusted ({err})"),
            match config.trust {
                Trust::Ca(_) => "something in between replaces the certificate, or the gateway's authority isn't the one in the file of --ca",
                _ if own.issuer().as_raw() == own.subject().as_raw() => "if the gateway's certificate is a self-signed one, give the --pin that it prints at its start; else something in between replaces it",
                _ => "something in between replaces the certificate; or the authority is your own, for --ca, or the gateway's file lacks the certificates between",
            }
            .into(),
        ),
    }
}

/// Whether the system trusts an authority that isn't one of the public ones, for a public name.
fn is_private(Seen { chain, name, .. }: &Seen, config: &Config) -> bool {
    let ServerName::DnsName(dns) = name else { return false };
    let last = dns.as_ref().rsplit('.').next().unwrap_or_default();
    if config.trust != Trust::System || !dns.as_ref().contains('.') || LOCAL.contains(&last) {
        return false;
    }
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = ptth_link::crypto::provider();
    let public = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build();
    let Some((own, others)) = chain.split_first() else { return false };
    let verified = |it: Arc<WebPkiServerVerifier>| {
        it.verify_server_cert(own, others, name, &[], UnixTime::now())
    };
    let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
    public.is_ok_and(|public| verified(public).err() == Some(unknown))
}

/// Top-level labels of names that no public authority certifies (RFC 6761, RFC 6762, RFC 8375, RFC 9476, and ICANN's
/// `internal`).
const LOCAL: [&str; 8] =
    ["localhost", "local", "test", "example", "invalid", "internal", "arpa", "alt"];

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;
    use crate::config::Gateway;

    /// The system trusts it, and no public authority stands behind it, though the name is a public one.
    #[test]
    fn an_authority_that_only_this_machine_knows_is_told() {
        let key = || KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = Issuer::new(authority, key());
        for (name, expected) in [
            ("gateway.example.com", Verdict::Warn),
            ("gateway.test", Verdict::Ok),
            ("gateway", Verdict::Ok),
        ] {
            let own = CertificateParams::new([name.to_owned()]).unwrap();
            let own = own.signed_by(&key(), &authority).unwrap();
            let chain = vec![own.der().clone()];
            let seen = Seen { chain, name: name.try_into().unwrap(), verdict: Ok(()) };
            let config = Config::new(Gateway::parse(name).unwrap());
            let (verdict, found, _) = judge(&seen, &config);
            assert_eq!(verdict, expected, "{name}: {found}");
        }
    }
}
