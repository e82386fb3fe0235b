//! TLS of a tunnel: the label, the client's certificate, and how the gateway is known.
//!
//! Invariant: the handshake always proves possession of the key, since certificates are public.

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, KeyLog, NoKeyLog, OtherError, RootCertStore, version,
};

use ptth_link::crypto;
use ptth_link::explain::keys;
use ptth_link::token::TokenError;

use crate::config::{Config, Trust, host_and_port};

/// The TLS configuration of one tunnel. `common_name` is `<instance>.<slot>`, at most 64 characters. The label of
/// `config` is offered alone, so the gateway must agree or end the handshake.
pub fn tunnel(
    config: &Config,
    knowing: Arc<dyn ServerCertVerifier>,
    common_name: &str,
) -> Result<Arc<ClientConfig>, TlsError> {
    let wishes = config.name.iter().chain(&config.path).map(String::as_str);
    let identity = config.identity().certificate(common_name, wishes)?;
    client(knowing, &config.alpn, Some(identity), keys::log(config.key_log))
}

/// The TLS configuration of a client that offers one protocol. For a registration by HTTP it has no certificate of its
/// own, since a reverse proxy before the gateway would get it.
pub fn client(
    knowing: Arc<dyn ServerCertVerifier>,
    protocol: &[u8],
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    key_log: Arc<dyn KeyLog>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        // rustls calls every verifier of the caller "dangerous", its own verifiers too.
        .dangerous()
        .with_custom_certificate_verifier(knowing);
    let mut tls = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key)?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls.key_log = key_log;
    // Each connection proves the key anew; the gateway gives no tickets anyway.
    tls.resumption = Resumption::disabled();
    Ok(Arc::new(tls))
}

/// The TLS configuration for an origin. Blocks.
pub fn origin(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let mut tls = client(verifier(trust)?, b"http/1.1", None, Arc::new(NoKeyLog))?;
    Arc::make_mut(&mut tls).resumption = Resumption::default();
    Ok(tls)
}

/// The name that the gateway's certificate is checked for, and SNI unless it is an address.
pub fn server_name(config: &Config) -> Result<ServerName<'static>, TlsError> {
    let name = ServerName::try_from(config.host.trim_end_matches('.').to_owned());
    name.map_err(|_| TlsError::Name(config.host.clone()))
}

pub fn how_verified(config: &Config) -> &'static str {
    match config.trust {
        _ if config.plain => "not at all (http://)",
        Trust::System => "by the system's trust store",
        Trust::Ca(_) => "by the certificates of --ca",
        Trust::Pin(_) => "by its pin",
        Trust::Insecure => "not at all (--insecure)",
    }
}

/// Whether a certificate covers the host of a visitor's `:authority`.
pub fn covers(certificate: &CertificateDer<'_>, authority: &str) -> bool {
    // An IPv6 address stands in brackets (RFC 3986 §3.2.2).
    let bare = authority.parse::<Ipv6Addr>().is_ok();
    let host = host_and_port(authority.strip_suffix(':').unwrap_or(authority));
    let name = host.ok().filter(|_| !bare).and_then(|(host, _)| ServerName::try_from(host).ok());
    let certificate = ParsedCertificate::try_from(certificate).ok();
    certificate.zip(name).is_some_and(|(it, name)| verify_server_name(&it, &name).is_ok())
}

/// Reads the trust store or the file of `--ca`, so it blocks.
pub fn verifier(trust: &Trust) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    match trust {
        Trust::Pin(pin) => Ok(Arc::new(Verifier::Pin(*pin))),
        Trust::Insecure => Ok(Arc::new(Verifier::Any)),
        Trust::System => Ok(authorities(system_roots())?),
        Trust::Ca(path) => {
            let wrong = |why| TlsError::Ca(path.clone(), why);
            let pem = fs::read(path).map_err(|why| wrong(format!("can't be read ({why})")))?;
            let (listed, roots) = roots(&pem).map_err(wrong)?;
            Ok(Arc::new(Verifier::Listed(authorities(roots)?, listed)))
        }
    }
}

fn authorities(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), crypto::provider());
    verifier.build().map_err(|why| TlsError::Roots(why.to_string()))
}

/// The system's roots, or Mozilla's where there are none: an image from scratch has no store. Blocks.
pub fn system_roots() -> RootCertStore {
    or_bundled(rustls_native_certs::load_native_certs().certs)
}

fn or_bundled(native: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // webpki can't read some old roots of usual stores.
    let (usable, _) = roots.add_parsable_certificates(native);
    if usable == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// The certificates of a PEM file, and the same as roots. The error is the end of a sentence that begins with the path.
pub fn roots(pem: &[u8]) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|_| "isn't proper PEM")?;
    if found.is_empty() {
        return Err(
            "holds no certificate; it must have `-----BEGIN CERTIFICATE-----` in it".to_owned()
        );
    }
    let mut roots = RootCertStore::empty();
    for certificate in &found {
        let added = roots.add(certificate.clone());
        added.map_err(|why| format!("holds a bad certificate ({why})"))?;
    }
    Ok((found, roots))
}

/// Verification without an authority.
#[derive(Debug)]
enum Verifier {
    Any,
    /// The SHA-256 of the certificate. Chain, names and dates are ignored.
    Pin([u8; 32]),
    /// The certificates of a file: authorities, or the gateway's own.
    Listed(Arc<WebPkiServerVerifier>, Vec<CertificateDer<'static>>),
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self {
            Self::Any => {}
            Self::Pin(wanted) => {
                let seen = crypto::sha256(end_entity);
                if !crypto::same(&seen, wanted) {
                    let [seen, wanted] = [&seen, wanted].map(crypto::pin_text);
                    let why = format!("the gateway's certificate has the pin {seen}, not {wanted}");
                    let why = OtherError(Arc::new(io::Error::other(why)));
                    return Err(CertificateError::Other(why).into());
                }
            }
            Self::Listed(authorities, listed) => {
                match authorities.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                    // `openssl req -x509` marks its certificates as authorities, and webpki accepts no authority as a
                    // server. rustls has no variant for that error (dates are checked before, and have one).
                    Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                        if listed.iter().any(|listed| listed == end_entity) =>
                    {
                        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                    }
                    verified => return verified,
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    ptth_link::verify_signatures!();
}

/// Why no tunnel can be tried. Each is one sentence for the user, causes included.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TlsError {
    #[error("the certificates to know it by: {} {}", .0.display(), .1)]
    Ca(PathBuf, String),
    #[error("no certificate to know the gateway by: {0}")]
    Roots(String),
    #[error("no certificate can be made of the token: {0}")]
    Certificate(#[from] TokenError),
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
    #[error("TLS can't be set up: {0}")]
    Rustls(#[from] rustls::Error),
}
