//! The keys that JWTs are checked with, out of their files.
//!
//! Each comes with its bytes, by which it is recognised after a reload.

use std::path::Path;

use jsonwebtoken::DecodingKey;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::oid_registry::{OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::auth::secret::{Content, Files, LoadError, Secret};

/// A shared secret, as it is in the file.
pub(super) fn secret(path: &Path, files: &mut Files) -> Result<(DecodingKey, Vec<u8>), LoadError> {
    let secret = files.secret(path)?;
    if secret.bytes().starts_with(b"-----BEGIN") {
        return Err(LoadError::content(
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

/// The Ed25519 public keys of a PEM file.
pub(super) fn ed25519(
    path: &Path,
    files: &mut Files,
) -> Result<Vec<(DecodingKey, Vec<u8>)>, LoadError> {
    let wrong = || LoadError::content(path, "holds a key that isn't Ed25519, in `eddsa_files`");
    let found = public_keys(path, files)?;
    let keys = found.iter().map(|der| {
        let key = parse(path, der)?;
        let raw = key.subject_public_key.data.as_ref();
        if key.algorithm.algorithm != OID_SIG_ED25519 || raw.len() != 32 {
            return Err(wrong());
        }
        Ok((DecodingKey::from_ed_der(raw), raw.to_vec()))
    });
    keys.collect()
}

/// The RSA public keys of a PEM file.
pub(super) fn rsa(
    path: &Path,
    files: &mut Files,
) -> Result<Vec<(DecodingKey, Vec<u8>)>, LoadError> {
    let found = public_keys(path, files)?;
    let keys = found.iter().map(|der| {
        let key = parse(path, der)?;
        let (raw, of_rsa) = (
            key.subject_public_key.data.as_ref(),
            key.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION,
        );
        match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if of_rsa => match rsa.key_size() {
                // What every provider of ours takes; shorter ones are broken, longer ones cost.
                2048..=8192 => Ok((DecodingKey::from_rsa_der(raw), raw.to_vec())),
                bits => Err(LoadError::content(
                    path,
                    format!("holds an RSA key of {bits} bits; it must have 2048 to 8192"),
                )),
            },
            _ => Err(LoadError::content(path, "holds a key that isn't RSA, in `rs256_files`")),
        }
    });
    keys.collect()
}

fn public_keys(
    path: &Path,
    files: &mut Files,
) -> Result<Vec<SubjectPublicKeyInfoDer<'static>>, LoadError> {
    let text =
        files.text(
            path,
            |text| {
                if text.contains(PRIVATE) { Content::Secret } else { Content::Public }
            },
        )?;
    if text.contains(PRIVATE) {
        return Err(LoadError::content(
            path,
            "holds a private key; the gateway needs only the public half (`openssl pkey -in FILE -pubout`)",
        ));
    }
    let found = SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes());
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(|_| LoadError::content(path, "isn't proper PEM"))?;
    if found.is_empty() {
        return Err(LoadError::content(
            path,
            "holds no public key; it must have `-----BEGIN PUBLIC KEY-----` in it",
        ));
    }
    Ok(found)
}

fn parse<'a>(
    path: &Path,
    der: &'a SubjectPublicKeyInfoDer<'_>,
) -> Result<SubjectPublicKeyInfo<'a>, LoadError> {
    let key = SubjectPublicKeyInfo::from_der(der);
    key.map(|(_, key)| key).map_err(|_| LoadError::content(path, "holds no proper public key"))
}

const PRIVATE: &str = "PRIVATE KEY-----";

/// RFC 7518 §3.2: as many bytes as the hash has.
const SHORTEST: usize = 32;
