//! The keys that JWTs are checked with, out of their files.
//!
//! Each comes with its bytes, by which it is recognised after a reload.

use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::oid_registry::{OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use ptth_link::settings::Mistake;

use crate::auth::secret::{Files, Secret, about};

/// A shared secret, as it is in the file.
pub(super) fn secret(path: &Path, files: &mut Files) -> Result<(DecodingKey, Vec<u8>), Mistake> {
    let secret = files.secret(path)?;
    if secret.bytes().starts_with(b"-----BEGIN") {
        return Err(about(
            path,
            "holds a PEM key where `hs256_files` wants a secret; everybody who knows a public key could sign with it",
        ));
    }
    if secret.bytes().len() < SHORTEST {
        files.warn(format!(
            "{} holds a secret of {} bytes; HS256 wants {SHORTEST} or more (RFC 7518 §3.2), for example from `openssl rand -hex 32`",
            path.display(),
            secret.bytes().len()
        ));
    }
    Ok(shared(&secret))
}

/// A shared secret.
pub(super) fn shared(secret: &Secret) -> (DecodingKey, Vec<u8>) {
    (DecodingKey::from_secret(secret.bytes()), secret.bytes().to_vec())
}

/// The public keys of a PEM file, for EdDSA (Ed25519) or RS256.
pub(super) fn public(
    path: &Path,
    algorithm: Algorithm,
    files: &mut Files,
) -> Result<Vec<(DecodingKey, Vec<u8>)>, Mistake> {
    let wrong = |why: &str| about(path, why);
    let keys = public_keys(path, files)?;
    let keys = keys.iter().map(|der| {
        let key = SubjectPublicKeyInfo::from_der(der);
        let (_, key) = key.map_err(|_| wrong("holds no proper public key"))?;
        let (of, raw) = (&key.algorithm.algorithm, key.subject_public_key.data.as_ref());
        let made = match (algorithm, key.parsed()) {
            (Algorithm::RS256, Ok(PublicKey::RSA(rsa))) if *of == OID_PKCS1_RSAENCRYPTION => {
                // What every provider of ours takes; shorter ones are broken, longer ones cost.
                let bits = rsa.key_size();
                if !(2048..=8192).contains(&bits) {
                    let why = format!("holds an RSA key of {bits} bits; it must have 2048 to 8192");
                    return Err(wrong(&why));
                }
                DecodingKey::from_rsa_der(raw)
            }
            (Algorithm::RS256, _) => {
                return Err(wrong("holds a key that isn't RSA, in `rs256_files`"));
            }
            _ if *of == OID_SIG_ED25519 && raw.len() == 32 => DecodingKey::from_ed_der(raw),
            _ => return Err(wrong("holds a key that isn't Ed25519, in `eddsa_files`")),
        };
        Ok((made, raw.to_vec()))
    });
    keys.collect()
}

fn public_keys(
    path: &Path,
    files: &mut Files,
) -> Result<Vec<SubjectPublicKeyInfoDer<'static>>, Mistake> {
    let text = files.text(path)?;
    if text.contains("PRIVATE KEY-----") {
        return Err(about(
            path,
            "holds a private key; the gateway needs only the public half (`openssl pkey -in FILE -pubout`)",
        ));
    }
    let found = SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()).collect();
    let found: Vec<_> = Result::map_err(found, |_| about(path, "isn't proper PEM"))?;
    if found.is_empty() {
        return Err(about(
            path,
            "holds no public key; it must have `-----BEGIN PUBLIC KEY-----` in it",
        ));
    }
    Ok(found)
}

/// RFC 7518 §3.2: as many bytes as the hash has.
const SHORTEST: usize = 32;
