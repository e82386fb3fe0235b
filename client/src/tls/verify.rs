//! Gateways that no authority vouches for: known by their pin, listed themselves, or not at all.
//!
//! Possession of the certificate's key is proven in any case; otherwise a pin would be worth
//! nothing, since certificates are public.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, OtherError};

use ptth_link::crypto;

/// Looks at neither chain, names nor dates of a certificate.
#[derive(Debug)]
pub(super) struct Shortcut {
    pin: Option<[u8; 32]>,
}

impl Shortcut {
    /// Accepts the one certificate with this SHA-256.
    pub(super) fn pin(pin: [u8; 32]) -> Self {
        Self { pin: Some(pin) }
    }

    /// Accepts any certificate.
    pub(super) fn anything() -> Self {
        Self { pin: None }
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

    ptth_link::verify_signatures!();
}

/// Known by the certificates in a file: authorities, or the gateway's own.
#[derive(Debug)]
pub(super) struct Listed {
    authorities: Arc<WebPkiServerVerifier>,
    listed: Vec<CertificateDer<'static>>,
}

impl Listed {
    pub(super) fn new(
        authorities: Arc<WebPkiServerVerifier>,
        listed: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self { authorities, listed }
    }
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.authorities.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        match verified {
            // `openssl req -x509` marks what it makes as an authority, and webpki takes none for a
            // server, for which rustls has no name (dates have, and come before). But who puts
            // this very certificate into the file means the server that shows it.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if self.listed.iter().any(|listed| listed == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    ptth_link::verify_signatures!();
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
