//! An authority's certificates as credentials of door A: `client_ca = "FILE"`, and its revocations.
//!
//! Invariant: the names in a certificate count only after its chain was verified; they are the only hosts that it is
//! good for.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use serde::Deserialize;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use ptth_link::crypto;
use ptth_link::settings::Mistake;

use super::credential::{Claim, Credential, Pass, Refusal};
use super::secret::{Files, about};
use crate::identity::Mark;

/// `client_ca = "FILE"`, with `client_crl = "FILE"` beside it.
#[derive(Debug, Deserialize)]
#[serde(from = "PathBuf")]
pub struct Settings {
    roots: PathBuf,
    /// The lists of all authorities in a chain: where one is missing, whether a certificate was revoked isn't known.
    revoked: Option<PathBuf>,
}

impl From<PathBuf> for Settings {
    fn from(roots: PathBuf) -> Self {
        Self { roots, revoked: None }
    }
}

impl Settings {
    pub(crate) fn with(self, revoked: Option<PathBuf>) -> Self {
        Self { revoked, ..self }
    }

    pub(super) fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, Mistake> {
        let path = self.roots;
        let (_, roots) =
            ptth_client::tls::roots(&files.bytes(&path)?).map_err(|why| about(&path, &why))?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), crypto::provider());
        let verifier = match self.revoked {
            None => verifier.build(),
            Some(path) => {
                let text = files.bytes(&path)?;
                let lists: Result<Vec<_>, _> =
                    CertificateRevocationListDer::pem_slice_iter(&text).collect();
                let lists = lists.ok().filter(|lists| !lists.is_empty());
                let lists = lists.ok_or_else(|| about(&path, NO_LIST))?;
                verifier.with_crls(lists).build()
            }
        };
        let refused = |why| Mistake::new(format!("`client_ca` can't be used: {why}"));
        Ok(Arc::new(Authority(verifier.map_err(refused)?)))
    }
}

const NO_LIST: &str = "holds no revocation list; it must have `-----BEGIN X509 CRL-----` in it";

#[derive(Debug)]
struct Authority(Arc<dyn ClientCertVerifier>);

impl Credential for Authority {
    fn judge(&self, claim: &Claim<'_>) -> Result<Pass, Refusal> {
        let Some(certificate) = claim.chain.first() else { return Err(Refusal::Absent) };
        match self.verify(claim.chain) {
            Some(Ok(())) => {
                let hosts = Some(names(certificate));
                Ok(Pass { hosts, ..Pass::of(Mark::of("client_ca", &[certificate])) })
            }
            _ => Err(Refusal::Wrong("its certificate is not of this authority")),
        }
    }

    /// No secret is shown for it, so no mark is.
    fn keeps(&self, _: Mark) -> bool {
        false
    }

    fn verify(&self, chain: &[CertificateDer<'_>]) -> Option<Result<(), rustls::Error>> {
        let (certificate, intermediates) = chain.split_first()?;
        let verified = self.0.verify_client_cert(certificate, intermediates, UnixTime::now());
        Some(verified.map(drop))
    }
}

/// The DNS names of a certificate (RFC 5280 §4.2.1.6), in lower case.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}
