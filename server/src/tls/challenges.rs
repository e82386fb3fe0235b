//! The certificates that prove to a directory that this gateway is reached by a name (RFC 8737).
//!
//! Invariant: such a certificate is shown to no peer but one that asks for `acme-tls/1` and for nothing else, and only
//! while an order for its name is under way.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

use ptth_link::alpn;
use ptth_link::lock::Mutex;

/// By name, in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Challenges(Arc<Mutex<HashMap<String, Arc<CertifiedKey>>>>);

impl Challenges {
    /// Shows `key` for `name` until what this gives is dropped.
    pub(crate) fn show(&self, name: &str, key: CertifiedKey) -> Shown {
        self.0.lock().insert(name.to_owned(), Arc::new(key));
        Shown { challenges: self.clone(), name: name.to_owned() }
    }

    /// The certificate that this peer asks for, if it validates a name that is being ordered.
    pub(super) fn asked(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut labels = hello.alpn()?;
        let alone = labels.next() == Some(alpn::ACME) && labels.next().is_none();
        let name = hello.server_name().filter(|_| alone)?;
        self.0.lock().get(&name.to_ascii_lowercase()).cloned()
    }
}

/// An order that is under way.
#[must_use = "dropping it takes the certificate away"]
#[derive(Debug)]
pub(crate) struct Shown {
    challenges: Challenges,
    name: String,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.challenges.0.lock().remove(&self.name);
    }
}
