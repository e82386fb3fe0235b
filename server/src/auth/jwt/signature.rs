//! The signatures of JWTs, checked by the provider that does TLS.
//!
//! The library's own providers would bring a second copy of every algorithm, and must be chosen by
//! features that any other crate of the program may contradict.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use rustls::SignatureScheme;

use ptth_link::crypto;

/// Checks signatures, and can't sign: a program that embeds the gateway and makes JWTs with the same library installs
/// its own provider first, which checks what is checked here as well.
pub(super) static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: verifier,
    // For JWKs, which aren't read here.
    key_utils: KeyUtils::new_unimplemented(),
};

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let family = match algorithm {
        Algorithm::HS256 => AlgorithmFamily::Hmac,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        Algorithm::RS256 => AlgorithmFamily::Rsa,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    if key.family() != family {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    // Fails for keys in parts, which aren't made here.
    Ok(Box::new(Check { algorithm: *algorithm, key: key.try_get_as_bytes()?.to_vec() }))
}

struct Check {
    algorithm: Algorithm,
    key: Vec<u8>,
}

impl Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], shown: &Vec<u8>) -> Result<(), signature::Error> {
        let key = &self.key;
        let good = match self.algorithm {
            Algorithm::HS256 => crypto::same(&crypto::hmac_sha256(key, message), shown),
            Algorithm::EdDSA => by(SignatureScheme::ED25519, key, message, shown),
            Algorithm::RS256 => by(SignatureScheme::RSA_PKCS1_SHA256, key, message, shown),
            _ => false,
        };
        if good { Ok(()) } else { Err(signature::Error::new()) }
    }
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// `key` is what a SubjectPublicKeyInfo holds: for RSA the DER of RFC 8017 §A.1.1, for Ed25519 the
/// 32 bytes of RFC 8032.
fn by(scheme: SignatureScheme, key: &[u8], message: &[u8], shown: &[u8]) -> bool {
    let known = crypto::provider().signature_verification_algorithms.mapping;
    let algorithms = known.iter().find(|(known, _)| *known == scheme).map(|(_, list)| *list);
    // TLS tells the list's variants apart by how a key is labelled; the first is the usual one.
    let algorithm = algorithms.and_then(|list| list.first());
    algorithm.is_some_and(|algorithm| algorithm.verify_signature(key, message, shown).is_ok())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    /// Checks a token's signature, and that no other one of its length passes.
    fn checks(algorithm: Algorithm, key: &DecodingKey, token: &str) {
        let (message, shown) = token.rsplit_once('.').unwrap();
        let shown = URL_SAFE_NO_PAD.decode(shown).unwrap();
        let check = verifier(&algorithm, key).unwrap();
        let verify = |message: &str, shown: &Vec<u8>| check.verify(message.as_bytes(), shown);
        assert!(verify(message, &shown).is_ok(), "{algorithm:?}");
        assert!(verify(&message[1..], &shown).is_err(), "{algorithm:?}");
        for at in 0..shown.len() {
            let mut forged = shown.clone();
            forged[at] ^= 1;
            assert!(verify(message, &forged).is_err(), "{algorithm:?} {at}");
        }
        for forged in [vec![], shown[1..].to_vec(), [&shown[..], &[0]].concat()] {
            assert!(verify(message, &forged).is_err(), "{algorithm:?}");
        }
    }

    /// RFC 7515 §A.1.
    #[test]
    fn hs256_is_what_the_rfc_says() {
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = DecodingKey::from_secret(&URL_SAFE_NO_PAD.decode(key).unwrap());
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        checks(Algorithm::HS256, &key, token);
    }

    /// RFC 8037 §A.4.
    #[test]
    fn eddsa_is_what_the_rfc_says() {
        let key = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let key = DecodingKey::from_ed_der(&URL_SAFE_NO_PAD.decode(key).unwrap());
        let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        checks(Algorithm::EdDSA, &key, token);
    }

    #[test]
    fn a_key_checks_its_own_algorithm_only() {
        let key = DecodingKey::from_rsa_der(b"any");
        for algorithm in [Algorithm::HS256, Algorithm::EdDSA, Algorithm::RS512, Algorithm::PS256] {
            assert!(verifier(&algorithm, &key).is_err(), "{algorithm:?}");
        }
        let parts = DecodingKey::from_rsa_raw_components(&[1], &[3]);
        assert!(verifier(&Algorithm::RS256, &parts).is_err());
    }
}
