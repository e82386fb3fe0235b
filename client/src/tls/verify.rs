//! Verification without an authority: by a pin, by the certificate itself, or none.
//!
//! Invariant: the handshake always proves possession of the key, since certificates are public.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, OtherError};

use ptth_link::crypto::{self, pin_text};

/// Accepts the certificate with this SHA-256, or any. Ignores chain, names and dates.
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
        let (seen, wanted) = (pin_text(&seen), pin_text(&wanted));
        let why = format!("the gateway's certificate has the pin {seen}, not {wanted}");
        Err(CertificateError::Other(OtherError(Arc::new(io::Error::other(why)))).into())
    }

    ptth_link::verify_signatures!();
}

/// Accepts the certificates of a file: authorities, or the gateway's own.
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
            // server. rustls has no variant for that error (dates are checked before, and have one).
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
