//! The keys that JWTs are checked with, out of their files.

use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::oid_registry::{OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use ptth_link::settings::Mistake;

use crate::auth::secret::{Files, about, ensure_file};

pub(super) fn secret(path: &Path, files: &mut Files) -> Result<DecodingKey, Mistake> {
    let secret = files.secret(path)?;
    let why = "holds a PEM key where `hs256_files` wants a secret; whatever knows a public key could sign with it";
    ensure_file(path, !secret.bytes().starts_with(b"-----BEGIN"), why)?;
    if secret.bytes().len() < SHORTEST {
        files.warn(format!(
            "{} holds a secret of {} bytes; HS256 wants {SHORTEST} or more (RFC 7518 §3.2), for example from `openssl rand -hex 32`",
            path.display(),
            secret.bytes().len()
        ));
    }
    Ok(DecodingKey::from_secret(secret.bytes()))
}

/// The public keys of a PEM file, for EdDSA (Ed25519) or RS256.
pub(super) fn public(
    path: &Path,
    algorithm: Algorithm,
    files: &mut Files,
) -> Result<Vec<DecodingKey>, Mistake> {
    let wrong = |why: &str| about(path, why);
    let text = files.text(path)?;
    let why = "holds a private key; the gateway needs only the public half (`openssl pkey -in FILE -pubout`)";
    ensure_file(path, !text.contains("PRIVATE KEY-----"), why)?;
    let keys = SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()).map(|der| {
        let der = der.map_err(|_| wrong("isn't proper PEM"))?;
        let key = SubjectPublicKeyInfo::from_der(&der);
        let (_, key) = key.map_err(|_| wrong("holds no proper public key"))?;
        let (of, raw) = (&key.algorithm.algorithm, key.subject_public_key.data.as_ref());
        match (algorithm, key.parsed()) {
            (Algorithm::RS256, Ok(PublicKey::RSA(rsa))) if *of == OID_PKCS1_RSAENCRYPTION => {
                // What every provider of ours takes; shorter ones are broken, longer ones cost.
                let bits = rsa.key_size();
                let why = format!("holds an RSA key of {bits} bits; it must have 2048 to 8192");
                ensure_file(path, (2048..=8192).contains(&bits), &why)?;
                Ok(DecodingKey::from_rsa_der(raw))
            }
            (Algorithm::RS256, _) => Err(wrong("holds a key that isn't RSA, in `rs256_files`")),
            _ if *of == OID_SIG_ED25519 && raw.len() == 32 => Ok(DecodingKey::from_ed_der(raw)),
            _ => Err(wrong("holds a key that isn't Ed25519, in `eddsa_files`")),
        }
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let why = "holds no public key; it must have `-----BEGIN PUBLIC KEY-----` in it";
    ensure_file(path, !keys.is_empty(), why)?;
    Ok(keys)
}

/// RFC 7518 §3.2: as many bytes as the hash has.
const SHORTEST: usize = 32;
