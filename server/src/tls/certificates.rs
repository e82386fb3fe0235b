//! The certificates in use, and which of them a name gets.
//!
//! In:  what each source gave, now and at each reload. Out: one certificate for every name, since what no
//! certificate is for gets the first.
//!
//! Invariant: the table is swapped whole, so that a handshake sees all of it old or all of it new; and one
//! source that went bad doesn't hold up the others.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::CertificateSource;

use super::TlsError;
use super::certificate::{self, Loaded};

/// The certificates in use. rustls asks for one in each handshake.
#[derive(Debug)]
pub struct Certificates {
    table: RwLock<Arc<Table>>,
}

/// Which certificate is for whom. The first is for everybody else.
#[derive(Debug, Default)]
struct Table {
    sources: Vec<CertificateSource>,
    /// What each of them gave.
    loaded: Vec<Arc<Loaded>>,
    /// By names in lower case, and addresses as text.
    exact: HashMap<String, usize>,
    /// By what follows `*.`, which stands for one label (RFC 9525 §6.3).
    wildcards: HashMap<String, usize>,
    warnings: Vec<String>,
}

impl Certificates {
    /// Loads or makes each. Reads files, so it blocks.
    pub(super) fn new(sources: &[CertificateSource]) -> Result<Self, TlsError> {
        let certificates = Self { table: RwLock::default() };
        certificates.change(sources)?;
        Ok(certificates)
    }

    /// Has other sources from now on, of which those that were there before keep what they gave. True if
    /// something changed. Reads files, so it blocks. Not to be called twice at a time.
    ///
    /// # Errors
    /// [`TlsError`]: one can't be used, and all stays as it is.
    pub(super) fn change(&self, sources: &[CertificateSource]) -> Result<bool, TlsError> {
        let before = self.table();
        if before.sources == sources {
            return Ok(false);
        }
        let load = |source: &CertificateSource| match before
            .sources
            .iter()
            .position(|known| known == source)
        {
            Some(index) => before.loaded.get(index).cloned().map_or_else(|| load(source), Ok),
            None => load(source),
        };
        let loaded = sources.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        self.set(Table::of(loaded, sources));
        Ok(true)
    }

    fn set(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first, which is the one for names that none is for.
    pub(super) fn first(&self) -> Option<Arc<Loaded>> {
        self.table().loaded.first().cloned()
    }

    /// What the operator should hear, a sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let table = self.table();
        let own = table.loaded.iter().flat_map(|loaded| loaded.warnings());
        own.chain(table.warnings.iter().cloned()).collect()
    }

    /// Whether a request for `host` may come on a connection that was made for the name `sni`: both get the
    /// same certificate, or no name was told. Names of different certificates may be of different people,
    /// and who shook hands with one must not be answered as the other (RFC 9110 §7.4, §15.5.20).
    pub fn is_same(&self, sni: Option<&str>, host: &str) -> bool {
        let Some(sni) = sni else { return true };
        let table = self.table();
        table.sources.len() < 2 || table.choose(sni) == table.choose(host)
    }

    /// The files that there are.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let table = self.table();
        let files = table.sources.iter().filter_map(|source| match source {
            CertificateSource::Files { cert, key } => Some([cert.clone(), key.clone()]),
            CertificateSource::SelfSigned { .. } | CertificateSource::Text { .. } => None,
        });
        files.flatten().collect()
    }

    /// Reads the files again; true if some changed. What can't be used is an error, told after all were
    /// looked at, and its old certificate stays. Not to be called twice at a time. Blocks.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let before = self.table();
        let mut loaded = before.loaded.clone();
        let (mut changed, mut failed) = (false, None);
        for (source, loaded) in before.sources.iter().zip(&mut loaded) {
            match again(source, loaded) {
                Ok(None) => {}
                Ok(Some(new)) => {
                    *loaded = Arc::new(new);
                    changed = true;
                }
                Err(err) => {
                    failed.get_or_insert(err);
                }
            }
        }
        if changed {
            self.set(Table::of(loaded, &before.sources));
        }
        failed.map_or(Ok(changed), Err)
    }
}

fn load(source: &CertificateSource) -> Result<Arc<Loaded>, TlsError> {
    let loaded = match source {
        CertificateSource::Files { cert, key } => certificate::check(certificate::read(cert, key)?),
        CertificateSource::SelfSigned { names, kept: None } => certificate::make(names),
        CertificateSource::SelfSigned { names, kept: Some(folder) } => {
            certificate::keep(names, folder)
        }
        CertificateSource::Text { cert, key } => {
            certificate::check(certificate::text(cert.bytes(), key.bytes()))
        }
    };
    loaded.map(Arc::new)
}

/// What the source holds now, if that isn't what was loaded.
fn again(source: &CertificateSource, loaded: &Loaded) -> Result<Option<Loaded>, TlsError> {
    let CertificateSource::Files { cert, key } = source else {
        return Ok(None);
    };
    let files = certificate::read(cert, key)?;
    if files.digest() == loaded.digest {
        return Ok(None);
    }
    certificate::check(files).map(Some)
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.table();
        let index = hello.server_name().map_or(0, |name| table.choose(name));
        table.loaded.get(index).map(|loaded| Arc::clone(&loaded.key))
    }
}

impl Table {
    fn of(loaded: Vec<Arc<Loaded>>, sources: &[CertificateSource]) -> Self {
        let mut table = Self { sources: sources.to_vec(), ..Self::default() };
        for (index, (own, source)) in loaded.iter().zip(sources).enumerate() {
            let names = own.key.cert.first().map(certificate::names).unwrap_or_default();
            if names.is_empty() && index > 0 {
                table.warnings.push(format!(
                    "{} is for no name (it has no subjectAltName), so nobody is ever shown it",
                    described(source)
                ));
            }
            for name in names {
                let (map, key) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut table.wildcards, rest.to_owned()),
                    None => (&mut table.exact, name.clone()),
                };
                match map.entry(key) {
                    Entry::Vacant(free) => {
                        free.insert(index);
                    }
                    Entry::Occupied(taken) if *taken.get() != index => {
                        let by = sources.get(*taken.get()).map(described).unwrap_or_default();
                        table.warnings.push(format!(
                            "{name} is in {by} and in {}; the former is shown for it",
                            described(source)
                        ));
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
        table.loaded = loaded;
        table
    }

    /// Which certificate is for `host`: a name or an address, with or without a port. Exact beats wildcard.
    fn choose(&self, host: &str) -> usize {
        let name = plain(host);
        let wildcard = || {
            let (_, rest) = name.split_once('.')?;
            self.wildcards.get(rest)
        };
        self.exact.get(&*name).or_else(wildcard).copied().unwrap_or_default()
    }
}

/// A host as the table has it: without port, brackets and final dot, in lower case; addresses in the one
/// way in which they are written here.
fn plain(host: &str) -> Cow<'_, str> {
    if let Some(rest) = host.strip_prefix('[') {
        let inside = rest.split(']').next().unwrap_or_default();
        return match inside.parse::<IpAddr>() {
            Ok(address) => Cow::Owned(address.to_string()),
            Err(_) => Cow::Borrowed(inside),
        };
    }
    let name = host.split(':').next().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

fn described(source: &CertificateSource) -> String {
    match source {
        CertificateSource::Files { cert, .. } => format!("the certificate {}", cert.display()),
        CertificateSource::SelfSigned { .. } => "the self-signed certificate".to_owned(),
        CertificateSource::Text { .. } => "the certificate of CERT_PEM".to_owned(),
    }
}
