//! Where the gateway's certificates come from: files, checked, or made on the spot.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::env;
use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, Validity, X509Certificate};

use ptth_link::settings::Mistake;
use ptth_link::{crypto, files};

use crate::auth::{Files, about, ensure};
use crate::config::CertificateSource;

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// Of the files that it was read from; zeros if there are none.
    digest: [u8; 32],
    /// The names and addresses that it is for, in lower case, wildcards with their `*.`.
    pub(super) names: Vec<String>,
    /// Whether issuer and subject are the same, so that only its pin vouches for it.
    pub(super) is_self_signed: bool,
    /// Whether it is shown only until the one that is ordered is there.
    pub(super) stands_in: bool,
    path: PathBuf,
    pub(super) begins: ASN1Time,
    pub(super) ends: ASN1Time,
    warnings: Vec<String>,
}

impl Loaded {
    pub(super) fn warnings(&self) -> Vec<String> {
        let left = self.ends.timestamp() - ASN1Time::now().timestamp();
        // Some are issued for days.
        let soon = SOON.min((self.ends.timestamp() - self.begins.timestamp()) / 6);
        let verb = if left < 0 { "expired" } else { "expires" };
        let (path, at) = (self.path.display(), self.ends);
        let ends = (left < soon)
            .then(|| format!("the certificate in {path} {verb} on {at}; see that it is renewed"));
        self.warnings.iter().cloned().chain(ends).collect()
    }
}

/// A renewal every 60 days of 90 leaves 30; with two weeks left it failed for long. In seconds.
const SOON: i64 = 14 * 86_400;

/// What the source gives; what it gave `before`, if that is the same. Only files can change. A source that orders its
/// certificate gives a self-signed one as long as it has none. Blocks.
pub(super) fn load(
    source: &CertificateSource,
    before: Option<&Arc<Loaded>>,
) -> Result<Arc<Loaded>, Mistake> {
    let pair = match (source, before) {
        (CertificateSource::Files { cert, key }, _) => read(cert, key)?,
        (CertificateSource::Acme { name, issuer }, _) => {
            let path = issuer.file(name);
            let why = match (path.exists(), before) {
                (false, Some(before)) => return Ok(before.clone()),
                (false, None) => None,
                (true, _) => match stored(name, &path, before) {
                    Ok(loaded) => return Ok(loaded),
                    Err(why) if before.is_some() => return Err(why),
                    Err(why) => Some(why),
                },
            };
            return stopgap(name, why).map(Arc::new);
        }
        (_, Some(before)) => return Ok(before.clone()),
        (CertificateSource::SelfSigned { names, kept: None }, _) => made(names)?,
        (CertificateSource::SelfSigned { names, kept: Some(folder) }, _) => {
            return keep(names, folder).map(Arc::new);
        }
        (CertificateSource::Text { cert, key }, _) => text(cert.bytes(), key.bytes()),
    };
    match before.filter(|before| before.digest == pair.digest) {
        Some(before) => Ok(before.clone()),
        None => check(pair).map(Arc::new),
    }
}

/// A certificate that was ordered for `name` and is still good for it; chain and key are in one file.
fn stored(name: &str, path: &Path, before: Option<&Arc<Loaded>>) -> Result<Arc<Loaded>, Mistake> {
    let pair = read(path, path)?;
    match before.filter(|before| before.digest == pair.digest) {
        Some(before) => Ok(before.clone()),
        None => good_for(name, path, pair).map(Arc::new),
    }
}

/// The same of one that will be in that file.
#[cfg(feature = "acme")]
pub(super) fn usable(name: &str, path: &Path, pem: &[u8]) -> Result<Loaded, Mistake> {
    let file = || (path.to_owned(), pem.to_owned());
    good_for(name, path, Pair { cert: file(), key: file(), digest: [0; 32] })
}

fn good_for(name: &str, path: &Path, pair: Pair) -> Result<Loaded, Mistake> {
    let loaded = check(pair)?;
    ensure(loaded.names.iter().any(|it| it == name), about(path, format!("isn't for {name}")))?;
    Ok(loaded)
}

/// For visitors of a name as long as its certificate isn't there, or can't be used.
fn stopgap(name: &str, why: Option<Mistake>) -> Result<Loaded, Mistake> {
    let mut loaded = check(signed(BTreeSet::from([name.to_owned()]))?)?;
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    loaded.stands_in = true;
    loaded.warnings = vec![format!(
        "{name} has no certificate of its directory yet{why}; until it has one, its visitors are shown a self-signed one, and browsers warn"
    )];
    Ok(loaded)
}

struct Pair {
    cert: (PathBuf, Vec<u8>),
    key: (PathBuf, Vec<u8>),
    digest: [u8; 32],
}

fn read(cert: &Path, key: &Path) -> Result<Pair, Mistake> {
    let mut files = Files::new("");
    let cert = (cert.to_owned(), files.bytes(cert)?);
    let key = (key.to_owned(), files.bytes(key)?);
    Ok(Pair { cert, key, digest: files.digest })
}

fn check(pair: Pair) -> Result<Loaded, Mistake> {
    let Pair { cert: (path, cert), key: (key_path, key), digest } = pair;
    let chain = CertificateDer::pem_slice_iter(&cert).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|why| malformed(&path, &why))?;
    let parsed = chain.iter().map(|der| X509Certificate::from_der(der).map(|(_, parsed)| parsed));
    let parsed = parsed.collect::<Result<Vec<_>, _>>().map_err(|why| damaged(&path, &why))?;
    let Some(own) = parsed.first() else {
        return Err(match PrivateKeyDer::from_pem_slice(&cert) {
            Ok(_) => swapped(&path),
            Err(_) => about(
                &path,
                "holds no certificate; give a PEM file with `-----BEGIN CERTIFICATE-----` in it",
            ),
        });
    };
    let key = private_key(&key_path, &key)?;
    let pair = certified(&chain, &key, &path, &key_path)?;
    dates(own.validity(), &path)?;
    let mut warnings = Vec::new();
    // Not an error: most peers find their way through a chain in any order.
    let issuers = parsed.iter().map(|it| it.issuer().as_raw());
    if issuers.zip(parsed.iter().skip(1)).any(|(issuer, next)| issuer != next.subject().as_raw()) {
        warnings.push(format!(
            "the certificates in {} aren't in order, each followed by its issuer; some visitors may refuse them",
            path.display()
        ));
    }
    warnings.extend(files::exposed(&key_path, "the private key"));
    let is_self_signed = own.issuer().as_raw() == own.subject().as_raw();
    let Validity { not_before: begins, not_after: ends } = *own.validity();
    let (key, names) = (Arc::new(pair), names(own));
    let stands_in = false;
    Ok(Loaded { key, digest, names, is_self_signed, stands_in, path, begins, ends, warnings })
}

fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Mistake> {
    // RFC 7468 §11, and the older way of OpenSSL, RFC 1421 §4.6.1.1.
    let encrypted = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
    let has = |mark: &str| bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
    let why =
        "is encrypted; decrypt it with `openssl pkey -in FILE -out NEW` and give the new file";
    ensure(!encrypted.into_iter().any(has), format!("the key in {} {why}", path.display()))?;
    PrivateKeyDer::from_pem_slice(bytes).map_err(|why| match why {
        pem::Error::NoItemsFound if CertificateDer::from_pem_slice(bytes).is_ok() => swapped(path),
        pem::Error::NoItemsFound => about(
            path,
            "holds no private key; give a PEM file with `-----BEGIN PRIVATE KEY-----` in it",
        ),
        why => malformed(path, &why),
    })
}

fn swapped(path: &Path) -> Mistake {
    about(
        path,
        "holds the other half; --cert takes the certificate and --key the private key, so swap them",
    )
}

fn damaged(path: &Path, why: &dyn Display) -> Mistake {
    about(path, format!("is damaged ({why}); write the PEM file again"))
}

/// The parser's errors may quote lines of the file, and the file may be a key: so only their kind.
fn malformed(path: &Path, why: &pem::Error) -> Mistake {
    let why = match why {
        pem::Error::MissingSectionEnd { .. } => "an END line is missing",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is broken",
        pem::Error::Base64Decode(_) => "its base64 is broken",
        _ => "it isn't proper PEM",
    };
    damaged(path, &why)
}

/// The key must be the first certificate's; if it is a later one's, the order is what is wrong.
fn certified(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    path: &Path,
    key_path: &Path,
) -> Result<CertifiedKey, Mistake> {
    let provider = crypto::provider();
    let pair = |chain: &[_]| CertifiedKey::from_der(chain.to_vec(), key.clone_key(), &provider);
    let (cert, key) = (path.display(), key_path.display());
    pair(chain).map_err(|why| match why {
        rustls::Error::InvalidCertificate(why) => damaged(path, &why),
        rustls::Error::InconsistentKeys(_) => match chain.chunks(1).position(|it| pair(it).is_ok()) {
            Some(before) => Mistake::new(format!(
                "the key belongs to certificate {} in {cert}; put the server's own certificate first, then its issuers",
                before + 1
            )),
            None => Mistake::new(format!(
                "the key in {key} isn't the key of the certificate in {cert}; give the pair that was issued together"
            )),
        },
        _ => Mistake::new(format!(
            "the key in {key} is of a type that can't be used; take ECDSA (P-256, P-384), RSA of 2048 bits or more, or Ed25519"
        )),
    })
}

fn dates(Validity { not_before, not_after }: &Validity, path: &Path) -> Result<(), Mistake> {
    let (path, now) = (path.display(), ASN1Time::now());
    let expired = format!(
        "the certificate in {path} expired on {not_after}; renew it (`certbot renew`), or set this machine's clock"
    );
    let early = "set this machine's clock";
    let early = format!("the certificate in {path} isn't valid before {not_before}; {early}");
    ensure(now <= *not_after, expired)?;
    ensure(now >= *not_before, early)
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let address = |bytes: &[u8]| {
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => Some(address(bytes)?.to_string()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

/// The one that is kept in a folder, if it is for all `names` and lasts; else a new one, which is kept.
fn keep(names: &[String], folder: &Path) -> Result<Loaded, Mistake> {
    let (cert, key) = (folder.join("self-signed.pem"), folder.join("self-signed.key"));
    if let Ok(loaded) = read(&cert, &key).and_then(check)
        && loaded.warnings().is_empty()
        && names.iter().all(|name| loaded.names.contains(&name.to_ascii_lowercase()))
    {
        return Ok(loaded);
    }
    let mut pair = made(names)?;
    for (file, path, secret) in [(&mut pair.key, key, true), (&mut pair.cert, cert, false)] {
        files::replace(&path, &file.1, secret).map_err(|err| {
            about(&path, format!("can't be written ({err}); check the folder of --state"))
        })?;
        file.0 = path;
    }
    check(pair)
}

fn text(cert: &[u8], key: &[u8]) -> Pair {
    let (cert, key) = (("CERT_PEM".into(), cert.into()), ("KEY_PEM".into(), key.into()));
    Pair { cert, key, digest: [0; 32] }
}

fn made(names: &[String]) -> Result<Pair, Mistake> {
    let mut all = BTreeSet::from(["localhost".to_owned()]);
    all.extend([Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()]);
    // What the machine calls itself need not be a name that a certificate can hold.
    all.extend(host_name().filter(|name| ServerName::try_from(name.as_str()).is_ok()));
    all.extend(own_addresses().iter().map(IpAddr::to_string));
    all.extend(names.iter().map(|name| name.to_ascii_lowercase()));
    signed(all)
}

fn signed(all: BTreeSet<String>) -> Result<Pair, Mistake> {
    let failed = |why: rcgen::Error| {
        Mistake::new(format!("no certificate could be made ({why}); check each --name"))
    };
    let mut params = CertificateParams::new(all.into_iter().collect::<Vec<_>>()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, "2ptth-server --self-signed");
    // Apple's systems refuse more than 825 days even if the user trusts the certificate.
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(86_400)).into();
    params.not_after = (now + Duration::from_secs(800 * 86_400)).into();
    let pair = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&pair).map_err(failed)?;
    Ok(text(certificate.pem().as_bytes(), pair.serialize_pem().as_bytes()))
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
