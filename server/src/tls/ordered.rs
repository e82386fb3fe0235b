//! The certificates that the gateway orders by itself, as the feature that orders them sees them.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use ptth_link::files;
use ptth_link::settings::Mistake;

use super::{Tls, certificate};
use crate::auth::about;
use crate::config::{CertificateSource, Issuer};

pub(crate) struct Ordered {
    pub(crate) name: String,
    pub(crate) issuer: Arc<Issuer>,
    /// Whether a backend chose the name, and not the configuration.
    pub(crate) further: bool,
    /// The one that the directory issued, if there is one.
    pub(crate) held: Option<Held>,
}

/// Dates in seconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) leaf: CertificateDer<'static>,
    pub(crate) begins: i64,
    pub(crate) ends: i64,
}

impl Tls {
    /// Those that visitors are shown, or would be.
    pub(crate) fn ordered(&self) -> Vec<Ordered> {
        let table = self.certificates.table();
        let ordered = table.sources().filter_map(|(source, loaded, further)| match source {
            CertificateSource::Acme { name, issuer } => {
                let [begins, ends] = [loaded.begins, loaded.ends].map(|date| date.timestamp());
                let leaf = loaded.key.cert.first().filter(|_| !loaded.stands_in).cloned();
                let held = leaf.map(|leaf| Held { leaf, begins, ends });
                table.shows(name, loaded).then(|| Ordered {
                    name: name.clone(),
                    issuer: issuer.clone(),
                    further,
                    held,
                })
            }
            _ => None,
        });
        ordered.collect()
    }

    /// Keeps a certificate that was issued for `name`, the chain and its key in PEM, and shows it from now on: when it
    /// expires. Blocks.
    ///
    /// # Errors
    /// It can't be used or kept; nothing has changed.
    pub(crate) fn keep(&self, name: &str, issuer: &Issuer, pem: &str) -> Result<String, Mistake> {
        let path = issuer.file(name);
        let loaded = certificate::usable(name, &path, pem.as_bytes())?;
        files::replace(&path, pem, true).map_err(|err| {
            about(&path, format!("can't be written ({err}); check the folder of --state"))
        })?;
        let _one = self.tokens.lock();
        // What is wrong with another file is told when that is read again.
        let _ = self.certificates.update(None);
        self.forget_sessions()?;
        Ok(loaded.ends.to_string())
    }

    /// Orders for these names beside the configuration's, if that has any name ordered, and for no others. Blocks.
    ///
    /// # Errors
    /// A certificate can't be made, and all stays as it is.
    pub(crate) fn order_also(&self, names: &BTreeSet<String>) -> Result<(), Mistake> {
        let _one = self.tokens.lock();
        if self.certificates.order_also(names)? { self.forget_sessions() } else { Ok(()) }
    }
}
