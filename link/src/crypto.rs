//! The cryptography that both ends use, chosen in one place.
//!
//! Nothing here or elsewhere relies on rustls' process-wide default provider: a program that embeds
//! our libraries may have set another one, or two features may have left none.

use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::tls13::OkmBlock;
use rustls::server::ProducesTickets;
use rustls::{CipherSuite, Tls13CipherSuite};

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as backing;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use rustls::crypto::ring as backing;
#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
compile_error!("ptth-link needs one of the features `aws-lc-rs` and `ring`");

/// The provider of all TLS in this project, TLS_AES_128_GCM_SHA256 first.
///
/// AES-128 costs about a quarter less per byte than AES-256, which rustls would choose, and a
/// tunnel encrypts every byte twice.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = backing::default_provider();
        // Stable, so that the rest keeps rustls' own order.
        provider
            .cipher_suites
            .sort_by_key(|suite| (suite.tls13().is_none(), !AES_128.contains(&suite.suite())));
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

const AES_128: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// Makes tickets for resumption; the keys rotate by themselves.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    backing::Ticketer::new()
}

/// Fills an array with unpredictable bytes.
///
/// # Panics
/// If the system has no randomness. Going on without would be worse.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    provider().secure_random.fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// The SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(suite().common.hash_provider.hash(data).as_ref());
    digest
}

/// HMAC with SHA-256 (RFC 2104). Compare what it gives with [`same`].
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    // RFC 2104 §2: a key longer than a block of the hash is hashed first. An `OkmBlock` holds
    // exactly such a block.
    let key = if key.len() > SHA256_BLOCK { &sha256(key)[..] } else { key };
    let mut tag = [0; 32];
    tag.copy_from_slice(suite().hkdf_provider.hmac_sign(&OkmBlock::new(key), message).as_ref());
    tag
}

/// The cipher suite that is named after SHA-256; the provider has no shorter way to the hash.
fn suite() -> &'static Tls13CipherSuite {
    backing::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("it is named after TLS 1.3")
}

const SHA256_BLOCK: usize = 64;

/// Compares in a time that depends on the lengths only.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    a.len() == b.len() && black_box(differing) == 0
}

/// Writes the pin of a certificate as users see it: `sha256:` and 64 hexadecimal digits.
pub fn pin_text(digest: &[u8; 32]) -> String {
    format!("{PIN_PREFIX}{}", hex(digest))
}

/// Reads what [`pin_text`] wrote; upper case and colons between the bytes, as `openssl x509
/// -fingerprint` prints them, are accepted too.
pub fn parse_pin(text: &str) -> Option<[u8; 32]> {
    let (prefix, digits) = text.trim().split_at_checked(PIN_PREFIX.len())?;
    let digits: Vec<u8> = digits.bytes().filter(|b| *b != b':').collect();
    let (pairs, []) = digits.as_chunks() else { return None };
    let bytes = pairs.iter().map(|[high, low]| Some(hex_value(*high)? << 4 | hex_value(*low)?));
    let digest = bytes.collect::<Option<Vec<u8>>>()?.try_into().ok();
    digest.filter(|_| prefix.eq_ignore_ascii_case(PIN_PREFIX))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.filter_map(|nibble| char::from_digit(nibble.into(), 16)).collect()
}

pub(crate) fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

const PIN_PREFIX: &str = "sha256:";

/// The part of rustls' `ServerCertVerifier` and `ClientCertVerifier` that checks the signatures of a handshake, as the
/// provider does: a peer must hold the key of the certificate that it shows.
#[macro_export]
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signature: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &$crate::crypto::provider().signature_verification_algorithms;
            ::rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &::rustls::pki_types::CertificateDer<'_>,
            signature: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &$crate::crypto::provider().signature_verification_algorithms;
            ::rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<::rustls::SignatureScheme> {
            $crate::crypto::provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_128_comes_first_and_nothing_is_lost() {
        let ours = provider();
        assert_eq!(ours.cipher_suites[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(ours.cipher_suites.len(), backing::default_provider().cipher_suites.len());
    }

    #[test]
    fn sha256_is_sha256() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(b"abc")), expected);
    }

    #[test]
    fn hmac_sha256_is_hmac_sha256() {
        // RFC 4231 §4.3 and §4.7: short, and longer than a block.
        let larger = "Test Using Larger Than Block-Size Key - Hash Key First";
        let table = [
            (
                &b"Jefe"[..],
                "what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                larger,
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, message, expected) in table {
            assert_eq!(hex(&hmac_sha256(key, message.as_bytes())), expected, "{message}");
        }
        // RFC 2104 §2: that is what becomes of a long key, and a key is padded with zeroes.
        assert_eq!(hmac_sha256(&[1; 65], b""), hmac_sha256(&sha256(&[1; 65]), b""));
        assert_ne!(hmac_sha256(&[1; 64], b""), hmac_sha256(&sha256(&[1; 64]), b""));
        assert_eq!(hmac_sha256(b"", b"x"), hmac_sha256(&[0; 64], b"x"));
    }

    #[test]
    fn two_random_arrays_differ() {
        assert_ne!(random::<16>(), random::<16>());
    }

    #[test]
    fn same_compares_every_byte_and_the_length() {
        assert!(same(b"", b""));
        assert!(same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"bbc", b"ab", b"abcd", b""] {
            assert!(!same(b"abc", other), "{other:?}");
        }
    }

    #[test]
    fn pins_are_read_as_printed_here_and_by_openssl() {
        let digest = sha256(b"abc");
        let text = pin_text(&digest);
        assert_eq!(text.len(), 7 + 64);
        assert_eq!(parse_pin(&text), Some(digest));
        assert_eq!(parse_pin(&format!(" {} \n", text.to_uppercase())), Some(digest));
        let colons: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(parse_pin(&format!("SHA256:{}", colons.join(":"))), Some(digest));
        let missing = &text[..text.len() - 1];
        for bad in ["", "sha256:", "sha256:00", &text[7..], missing, &format!("{missing}g"), "é"] {
            assert_eq!(parse_pin(bad), None, "{bad:?}");
        }
        assert_eq!(parse_pin(&format!("{text}00")), None);
    }
}
