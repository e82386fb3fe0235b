//! Gateways that no authority vouches for: known by their pin, or not at all.
//!
//! Possession of the certificate's key is proven in any case; otherwise a pin would be worth
//! nothing, since certificates are public.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use ptth_link::crypto;

/// Looks at neither chain, names nor dates of a certificate.
#[derive(Debug)]
pub(super) struct Shortcut {
    pin: Option<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Shortcut {
    /// Accepts the one certificate with this SHA-256.
    pub(super) fn pin(pin: [u8; 32]) -> Self {
        Self {
            pin: Some(pin),
            ..Self::anything()
        }
    }

    /// Accepts any certificate.
    pub(super) fn anything() -> Self {
        Self {
            pin: None,
            algorithms: crypto::provider().signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for Shortcut {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(wanted) = self.pin else {
            return Ok(ServerCertVerified::assertion());
        };
        let seen = crypto::sha256(end_entity);
        if crypto::same(&seen, &wanted) {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = OtherError(Arc::new(PinMismatch { seen, wanted }));
        Err(CertificateError::Other(mismatch).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The gateway showed another certificate than the pin's. It sits in the
/// [`CertificateError::Other`] of the handshake's error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PinMismatch {
    /// The SHA-256 of what it showed.
    pub seen: [u8; 32],
    /// The pin.
    pub wanted: [u8; 32],
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the gateway's certificate has the pin {}, not {}",
            crypto::pin_text(&self.seen),
            crypto::pin_text(&self.wanted)
        )
    }
}

impl std::error::Error for PinMismatch {}
