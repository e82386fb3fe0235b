//! Gateways that no authority vouches for: known by their pin, listed themselves, or not at all.
//!
//! Possession of the certificate's key is proven in any case; otherwise a pin would be worth
//! nothing, since certificates are public.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, OtherError};

use ptth_link::crypto::{self, pin_text};

/// Accepts the one certificate with this SHA-256, or any. Looks at neither its chain, its names nor its dates.
#[derive(Debug)]
pub(super) struct Shortcut(pub(super) Option<[u8; 32]>);

impl ServerCertVerifier for Shortcut {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(wanted) = self.0 else {
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
    pub(super) authorities: Arc<WebPkiServerVerifier>,
    pub(super) listed: Vec<CertificateDer<'static>>,
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
            // `openssl req -x509` marks its certificates as authorities, and webpki accepts no authority as a
            // server. rustls has no name for that error (it has one for dates, which are checked before). A file
            // with this very certificate means the server that shows it.
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
#[derive(Debug, thiserror::Error)]
#[error("the gateway's certificate has the pin {}, not {}", pin_text(.seen), pin_text(.wanted))]
pub(super) struct PinMismatch {
    pub(super) seen: [u8; 32],
    wanted: [u8; 32],
}
