//! Where the gateway's certificates come from: files, checked, or made on the spot.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, Validity, X509Certificate};

use ptth_link::files::is_exposed;
use ptth_link::{crypto, files};

use super::TlsError;

/// A certificate that can be shown.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// Of the files' contents; zeros if it was made.
    pub(super) digest: [u8; 32],
    /// What was odd when it was read.
    warnings: Vec<String>,
    /// Its file, and until when it is valid. One that was made is made anew with each start.
    ends: Ends,
}

impl Loaded {
    /// What the operator should hear of it now; a sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let ends = self.ends.as_ref().and_then(|(path, at)| ending(path, *at));
        self.warnings.iter().cloned().chain(ends).collect()
    }
}

/// The contents of the two files, not checked yet.
pub(super) struct Files {
    cert: (PathBuf, Vec<u8>),
    key: (PathBuf, Vec<u8>),
}

impl Files {
    /// Changes when either file does.
    pub(super) fn digest(&self) -> [u8; 32] {
        let digests = [crypto::sha256(&self.cert.1), crypto::sha256(&self.key.1)];
        crypto::sha256(digests.as_flattened())
    }
}

/// Reads both files.
pub(super) fn read(cert: &Path, key: &Path) -> Result<Files, TlsError> {
    let read = |path: &Path| match fs::read(path) {
        Ok(bytes) => Ok((path.to_owned(), bytes)),
        Err(err) => Err(unreadable(path, &err)),
    };
    Ok(Files { cert: read(cert)?, key: read(key)? })
}

/// A key that only root may read is what containers meet most, so it gets advice of its own.
pub(super) fn unreadable(path: &Path, err: &io::Error) -> TlsError {
    match err.kind() {
        io::ErrorKind::PermissionDenied => TlsError::Denied(path.to_owned()),
        _ => TlsError::Unreadable { path: path.to_owned(), why: err.to_string() },
    }
}

/// Takes certificate and key out of the files and sees that they can be used.
pub(super) fn check(files: Files) -> Result<Loaded, TlsError> {
    let digest = files.digest();
    let (cert_path, key_path) = (&files.cert.0, &files.key.0);
    let chain = chain(cert_path, &files.cert.1)?;
    let key = private_key(key_path, &files.key.1)?;
    let provider = crypto::provider();
    let signer = provider.key_provider.load_private_key(key);
    let signer = signer.map_err(|_| TlsError::KeyType(key_path.clone()))?;
    matches(&chain, &signer, cert_path, key_path)?;
    let (mut warnings, ends) = dates_and_order(&chain, cert_path)?;
    if is_exposed(key_path) {
        warnings.push(format!(
            "{} holds the private key and everybody on this machine can read it; `chmod 600` it",
            key_path.display()
        ));
    }
    Ok(Loaded { key: Arc::new(CertifiedKey::new(chain, signer)), digest, warnings, ends })
}

fn chain(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|why| malformed(path, &why))?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    Err(match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(_) => TlsError::Swapped(path.to_owned()),
        Err(_) => TlsError::NoCertificate(path.to_owned()),
    })
}

fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    // RFC 7468 §11, and the older way of OpenSSL, RFC 1421 §4.6.1.1.
    let encrypted = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| contains(bytes, mark.as_bytes())) {
        return Err(TlsError::Encrypted(path.to_owned()));
    }
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => match CertificateDer::from_pem_slice(bytes) {
            Ok(_) => Err(TlsError::Swapped(path.to_owned())),
            Err(_) => Err(TlsError::NoKey(path.to_owned())),
        },
        Err(why) => Err(malformed(path, &why)),
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The parser's errors may quote lines of the file, and the file may be a key: so only their kind.
fn malformed(path: &Path, why: &pem::Error) -> TlsError {
    let why = match why {
        pem::Error::MissingSectionEnd { .. } => "an END line is missing",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is broken",
        pem::Error::Base64Decode(_) => "its base64 is broken",
        _ => "it isn't proper PEM",
    };
    TlsError::Malformed { path: path.to_owned(), why: why.to_owned() }
}

/// The key must be the first certificate's; if it is a later one's, the order is what is wrong.
fn matches(
    chain: &[CertificateDer<'static>],
    signer: &Arc<dyn rustls::sign::SigningKey>,
    cert: &Path,
    key: &Path,
) -> Result<(), TlsError> {
    for (index, candidate) in chain.iter().enumerate() {
        let pair = CertifiedKey::new(vec![candidate.clone()], Arc::clone(signer));
        match (pair.keys_match(), index) {
            (Ok(()), 0) => return Ok(()),
            (Ok(()), _) => {
                return Err(TlsError::Order { cert: cert.to_owned(), position: index + 1 });
            }
            (Err(rustls::Error::InvalidCertificate(why)), 0) => {
                return Err(TlsError::Malformed { path: cert.to_owned(), why: why.to_string() });
            }
            (Err(_), _) => {}
        }
    }
    Err(TlsError::Mismatch { cert: cert.to_owned(), key: key.to_owned() })
}

type Ends = Option<(PathBuf, ASN1Time)>;

/// Refuses a certificate whose time isn't now; gives warnings for the rest, and when it ends.
fn dates_and_order(
    chain: &[CertificateDer<'static>],
    path: &Path,
) -> Result<(Vec<String>, Ends), TlsError> {
    let parsed = chain.iter().map(|der| X509Certificate::from_der(der).map(|(_, parsed)| parsed));
    let parsed = parsed
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| TlsError::Malformed { path: path.to_owned(), why: why.to_string() })?;
    let (mut warnings, mut ends) = (Vec::new(), None);
    if let Some(own) = parsed.first() {
        dates(own.validity(), path)?;
        ends = Some((path.to_owned(), own.validity().not_after));
    }
    // Not an error: most peers find their way through a chain in any order.
    let unordered = parsed.windows(2).any(|pair| match pair {
        [cert, issuer] => cert.issuer().as_raw() != issuer.subject().as_raw(),
        _ => false,
    });
    if unordered {
        warnings.push(format!(
            "the certificates in {} aren't in order, each followed by its issuer; some visitors may refuse them",
            path.display()
        ));
    }
    Ok((warnings, ends))
}

fn dates(validity: &Validity, path: &Path) -> Result<(), TlsError> {
    let (cert, now) = (path.to_owned(), ASN1Time::now());
    if now > validity.not_after {
        return Err(TlsError::Expired { cert, since: validity.not_after.to_string() });
    }
    if now < validity.not_before {
        return Err(TlsError::NotYetValid { cert, from: validity.not_before.to_string() });
    }
    Ok(())
}

fn ending(path: &Path, at: ASN1Time) -> Option<String> {
    let left = at.timestamp() - ASN1Time::now().timestamp();
    let ends = if left < 0 { "expired" } else { "expires" };
    let path = path.display();
    (left < SOON)
        .then(|| format!("the certificate in {path} {ends} on {at}; see that it is renewed"))
}

/// A renewal every 60 days of 90 leaves 30; with two weeks left it failed for long.
const SOON: i64 = 14 * 86_400;

/// Makes a certificate for this machine and `names`.
pub(super) fn make(names: &[String]) -> Result<Loaded, TlsError> {
    check(made(names)?)
}

/// The one that is kept in a folder, if it is for all `names` and lasts; else a new one, which is kept.
pub(super) fn keep(names: &[String], folder: &Path) -> Result<Loaded, TlsError> {
    let (cert, key) = (folder.join("self-signed.pem"), folder.join("self-signed.key"));
    if let Ok(loaded) = read(&cert, &key).and_then(check)
        && loaded.warnings().is_empty()
        && loaded.key.cert.first().is_some_and(|certificate| {
            let known = self::names(certificate);
            names.iter().all(|name| known.contains(&name.to_ascii_lowercase()))
        })
    {
        return Ok(loaded);
    }
    let mut files = made(names)?;
    for (file, path, secret) in [(&mut files.key, key, true), (&mut files.cert, cert, false)] {
        let text = String::from_utf8_lossy(&file.1);
        files::replace(&path, &text, secret)
            .map_err(|err| TlsError::Unwritable { path: path.clone(), why: err.to_string() })?;
        file.0 = path;
    }
    check(files)
}

/// The files of one that is in no file.
pub(super) fn text(cert: &[u8], key: &[u8]) -> Files {
    Files { cert: ("CERT_PEM".into(), cert.into()), key: ("KEY_PEM".into(), key.into()) }
}

fn made(names: &[String]) -> Result<Files, TlsError> {
    let made = |why: &dyn ToString| TlsError::Made(why.to_string());
    let mut all = BTreeSet::from(["localhost".to_owned()]);
    all.extend([Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()]);
    // What the machine calls itself need not be a name that a certificate can hold.
    all.extend(host_name().filter(|name| ServerName::try_from(name.as_str()).is_ok()));
    all.extend(own_addresses().iter().map(IpAddr::to_string));
    all.extend(names.iter().map(|name| name.to_ascii_lowercase()));

    let mut params = CertificateParams::new(all.into_iter().collect::<Vec<_>>());
    let params = params.as_mut().map_err(|why| made(why))?;
    params.distinguished_name.push(DnType::CommonName, "2ptth-server --self-signed");
    // Apple's systems refuse more than 825 days even if the user trusts the certificate.
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(86_400)).into();
    params.not_after = (now + Duration::from_secs(800 * 86_400)).into();
    let pair = KeyPair::generate().map_err(|why| made(&why))?;
    let certificate = params.self_signed(&pair).map_err(|why| made(&why))?;
    Ok(text(certificate.pem().as_bytes(), pair.serialize_pem().as_bytes()))
}

/// The first DNS name that isn't a wildcard.
pub(super) fn first_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) if !name.contains('*') => Some((*name).to_owned()),
        _ => None,
    })
}

/// Every name and address that a certificate is for, in lower case, wildcards with their `*.`.
pub(super) fn names(certificate: &CertificateDer<'static>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => Some(address(bytes)?.to_string()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

/// Whether issuer and subject are one.
pub(super) fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, parsed)| parsed.issuer().as_raw() == parsed.subject().as_raw())
}

fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok().or(env::var("HOSTNAME").ok())?;
    let name = name.trim().to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

/// The addresses that this machine would dial out from. Connecting a UDP socket asks the routing
/// table and sends nothing; the targets are for documentation (RFC 5737, RFC 3849) all the same.
fn own_addresses() -> Vec<IpAddr> {
    let probe = |bind: IpAddr, target: IpAddr| {
        let socket = UdpSocket::bind(SocketAddr::from((bind, 0))).ok()?;
        socket.connect(SocketAddr::from((target, 443))).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    let v4 = probe(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 =
        probe(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    v4.into_iter().chain(v6).collect()
}
