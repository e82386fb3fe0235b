//! TLS of a tunnel: the label, the client's certificate, and how the gateway is known.

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;

use std::fmt;
use std::fs;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, version};

use ptth_link::crypto;
use ptth_link::token::TokenError;

use crate::config::{Config, Trust};
use verify::{Listed, Shortcut};

pub use verify::PinMismatch;

/// Makes the TLS configuration of one tunnel, alone in its process: see [`tunnel`] and [`verifier`].
///
/// # Errors
/// [`TlsError`]. Blocks.
pub fn connector(config: &Config, common_name: &str) -> Result<Arc<ClientConfig>, TlsError> {
    tunnel(config, verifier(&config.trust)?, common_name)
}

/// Makes the TLS configuration of one tunnel. `common_name` is the tunnel's name for the gateway,
/// at most 64 characters, `<instance>.<slot>`.
///
/// Offers the one label of `config`, so the gateway must agree to it or end the handshake. `knowing` is
/// how the gateway is known: [`verifier`].
///
/// # Errors
/// [`TlsError`].
pub fn tunnel(
    config: &Config,
    knowing: Arc<dyn ServerCertVerifier>,
    common_name: &str,
) -> Result<Arc<ClientConfig>, TlsError> {
    let wishes = config.name.iter().chain(&config.path).map(String::as_str);
    let certificate = config.identity().certificate(common_name, wishes);
    let (certificate, key) = certificate.map_err(TlsError::Certificate)?;
    let tls = builder(knowing)?.with_client_auth_cert(vec![certificate], key);
    Ok(one_protocol(tls.map_err(TlsError::Rustls)?, &config.alpn))
}

/// The TLS configuration of a registration by HTTP, which shows no certificate: it would go to whatever
/// stands before the gateway.
///
/// # Errors
/// [`TlsError`].
pub fn anonymous(
    knowing: Arc<dyn ServerCertVerifier>,
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    Ok(one_protocol(builder(knowing)?.with_no_client_auth(), protocol))
}

fn builder(
    knowing: Arc<dyn ServerCertVerifier>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(TlsError::Rustls)?;
    // "Dangerous" is rustls' name for any verifier that the caller brings, its own one too.
    Ok(builder.dangerous().with_custom_certificate_verifier(knowing))
}

fn one_protocol(mut tls: ClientConfig, protocol: &[u8]) -> Arc<ClientConfig> {
    tls.alpn_protocols = vec![protocol.to_vec()];
    // Each connection proves the key anew; the gateway gives no tickets anyway.
    tls.resumption = Resumption::disabled();
    Arc::new(tls)
}

/// The TLS configuration for an origin, known in this way. Blocks.
///
/// # Errors
/// [`TlsError`], if there is no usable root.
pub fn origin(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let mut tls = builder(verifier(trust)?)?.with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// The name that the gateway's certificate is checked for, and SNI unless it is an address.
pub fn server_name(config: &Config) -> Result<ServerName<'static>, TlsError> {
    let name = ServerName::try_from(config.host.trim_end_matches('.').to_owned());
    name.map_err(|_| TlsError::Name(config.host.clone()))
}

/// How the gateway is known, for the log.
pub fn how_verified(config: &Config) -> &'static str {
    match config.trust {
        _ if config.plain => "not at all (http://)",
        Trust::System => "by the system's trust store",
        Trust::Ca(_) => "by the certificates of --ca",
        Trust::Pin(_) => "by its pin",
        Trust::Insecure => "not at all (--insecure)",
    }
}

/// Whether a certificate is good for `host`, which may have a port, brackets, upper case and a
/// trailing dot: an `:authority`, as a visitor sent it.
pub fn covers(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Some(name) = without_port(host) else {
        return false;
    };
    let Ok(name) = ServerName::try_from(name) else {
        return false;
    };
    let Ok(certificate) = ParsedCertificate::try_from(certificate) else {
        return false;
    };
    verify_server_name(&certificate, &name).is_ok()
}

/// The host of an authority, without port and brackets.
fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']')?;
            // Only IPv6 addresses stand in brackets (RFC 3986 §3.2.2).
            ip.parse::<Ipv6Addr>().ok()?;
            (ip, port)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let well_formed = port.is_empty() || port.starts_with(':');
    (well_formed && digits.bytes().all(|b| b.is_ascii_digit())).then_some(host)
}

/// How the gateway is known. Reads the trust store or the file of `--ca`, so it blocks.
///
/// # Errors
/// [`TlsError`].
pub fn verifier(trust: &Trust) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    match trust {
        Trust::Pin(pin) => Ok(Arc::new(Shortcut::pin(*pin))),
        Trust::Insecure => Ok(Arc::new(Shortcut::anything())),
        Trust::System => Ok(authorities(system_roots())?),
        Trust::Ca(path) => {
            let wrong = |why| TlsError::Ca { path: path.clone(), why };
            let pem = fs::read(path).map_err(|why| wrong(format!("can't be read ({why})")))?;
            let (listed, roots) = roots(&pem).map_err(wrong)?;
            Ok(Arc::new(Listed::new(authorities(roots)?, listed)))
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
    // A store may hold old roots that webpki can't read; they hinder nobody.
    let (usable, _) = roots.add_parsable_certificates(native);
    if usable == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// The certificates of a PEM file, and the same as roots.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the file's path.
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

/// Why no tunnel can be tried. Each is one sentence for the user, causes included.
#[derive(Clone, Debug, PartialEq)]
pub enum TlsError {
    /// The file of `--ca`.
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No usable root.
    Roots(String),
    /// The client's own certificate.
    Certificate(TokenError),
    /// The public host can't be a TLS name.
    Name(String),
    /// rustls refuses the configuration.
    Rustls(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca { path, why } => {
                write!(f, "the certificates to know it by: {} {why}", path.display())
            }
            Self::Roots(why) => write!(f, "no certificate to know the gateway by: {why}"),
            Self::Certificate(why) => write!(f, "no certificate can be made of the token: {why}"),
            Self::Name(name) => write!(f, "{name:?} is neither a host name nor an IP address"),
            Self::Rustls(why) => write!(f, "TLS can't be set up: {why}"),
        }
    }
}

impl std::error::Error for TlsError {}
