//! The certificates in use, and which of them a name gets.
//!
//! Invariant: the table is swapped whole, so that a handshake sees all of it old or all of it new; and one
//! source that went bad doesn't hold up the others.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use ptth_link::lock::RwLock;
use ptth_link::settings::Mistake;

use crate::config::{CertificateSource, Issuer};

use super::certificate::{self, Loaded};

/// The certificates in use. rustls asks for one in each handshake.
#[derive(Debug, Default)]
pub(crate) struct Certificates(RwLock<Arc<Table>>);

#[derive(Debug, Default)]
pub(super) struct Table {
    sources: Vec<CertificateSource>,
    /// The first so many sources are the configuration's; the others are for names that came up since.
    configured: usize,
    pub(super) loaded: Vec<Arc<Loaded>>,
    /// Which certificate a name or an address gets. A wildcard begins with the dot: `*` stands for one label
    /// (RFC 9525 §6.3).
    names: HashMap<String, usize>,
    pub(super) warnings: Vec<String>,
}

impl Certificates {
    /// Loads the certificates of `sources`, and keeps those of sources that were there before; without `sources`,
    /// reads the files again. True if something changed. Blocks. Not to be called twice at a time.
    ///
    /// # Errors
    /// [`Mistake`]. A new source that can't be used leaves all as it is; where files that are read again can't be
    /// used, the old certificate stays, and the error is told after all were looked at.
    pub(super) fn update(&self, sources: Option<&[CertificateSource]>) -> Result<bool, Mistake> {
        let before = self.table();
        let Some(sources) = sources else { return self.load(&before, None) };
        let issuers: Vec<_> = sources.iter().filter_map(issuer).collect();
        let further = before.sources.iter().skip(before.configured);
        let further = further.filter(|it| issuer(it).is_some_and(|it| issuers.contains(&it)));
        let all: Vec<_> = sources.iter().chain(further).cloned().collect();
        self.load(&before, Some((&all, sources.len())))
    }

    /// Has these names' certificates ordered beside the configuration's, and no others, if it has one ordered at all.
    /// Names for which it has a certificate are left out. As [`Self::update`].
    pub(super) fn order_also(&self, names: &BTreeSet<String>) -> Result<bool, Mistake> {
        let before = self.table();
        let (configured, _) = before.sources.split_at(before.configured);
        let Some(issuer) = configured.iter().find_map(issuer) else { return Ok(false) };
        let covered = |name: &&String| before.find(name).is_none_or(|it| it >= before.configured);
        let of =
            |name: &String| CertificateSource::Acme { name: name.clone(), issuer: issuer.clone() };
        let further = names.iter().filter(covered).map(of);
        let all: Vec<_> = configured.iter().cloned().chain(further).collect();
        self.load(&before, Some((&all, before.configured)))
    }

    fn load(
        &self,
        before: &Table,
        wanted: Option<(&[CertificateSource], usize)>,
    ) -> Result<bool, Mistake> {
        let (sources, configured) = wanted.unwrap_or((&before.sources, before.configured));
        let (mut loaded, mut failed) = (Vec::new(), None);
        for source in sources {
            let known = before.sources.iter().position(|known| known == source);
            let old = known.and_then(|index| before.loaded.get(index));
            match (old, wanted.is_some()) {
                (Some(old), true) => loaded.push(old.clone()),
                (None, _) => loaded.push(certificate::load(source, None)?),
                (Some(old), false) => {
                    let new = certificate::load(source, Some(old));
                    loaded.push(new.unwrap_or_else(|why| {
                        failed.get_or_insert(why);
                        old.clone()
                    }));
                }
            }
        }
        let same = before.sources == sources
            && before.loaded.iter().zip(&loaded).all(|(old, new)| Arc::ptr_eq(old, new));
        if !same {
            let table = Table { configured, ..Table::of(loaded, sources) };
            *self.0.write() = Arc::new(table);
        }
        failed.map_or(Ok(!same), Err)
    }

    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.read())
    }

    /// The one for names that no certificate is for.
    pub(super) fn first(&self) -> Option<Arc<Loaded>> {
        self.table().loaded.first().cloned()
    }

    /// Whether a request for `host` may come on a connection that was made for the name `sni`: both get the
    /// same certificate, or no name was told. Different certificates may belong to different parties: a visitor that
    /// shook hands with one must not be answered as by the other (RFC 9110 §7.4, §15.5.20).
    pub(crate) fn is_same(&self, sni: Option<&str>, host: &str) -> bool {
        let Some(sni) = sni else { return true };
        let table = self.table();
        table.sources.len() < 2 || table.choose(sni) == table.choose(host)
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let table = self.table();
        let files = table.sources.iter().flat_map(|source| match source {
            CertificateSource::Files { cert, key } => vec![cert.clone(), key.clone()],
            CertificateSource::Acme { name, issuer } => vec![issuer.file(name)],
            CertificateSource::SelfSigned { .. } | CertificateSource::Text { .. } => vec![],
        });
        files.collect()
    }
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
        let (mut names, mut warnings) = (HashMap::new(), Vec::new());
        for (index, (own, source)) in loaded.iter().zip(sources).enumerate() {
            let source = described(source);
            if own.names.is_empty() && index > 0 {
                warnings.push(format!(
                    "{source} is for no name (it has no subjectAltName), so no visitor is ever shown it"
                ));
            }
            for name in &own.names {
                let first = *names.entry(name.trim_start_matches('*').to_owned()).or_insert(index);
                if first != index {
                    let first = sources.get(first).map(described).unwrap_or_default();
                    warnings.push(format!(
                        "{name} is in {first} and in {source}; the former is shown for it"
                    ));
                }
            }
        }
        Self { sources: sources.to_vec(), configured: 0, loaded, names, warnings }
    }

    /// Which certificate is for `host`: a name or an address, with or without a port. Exact beats wildcard.
    fn choose(&self, host: &str) -> usize {
        self.find(host).unwrap_or_default()
    }

    fn find(&self, host: &str) -> Option<usize> {
        let name = plain(host);
        let wildcard = || self.names.get(name.get(name.find('.')?..)?);
        self.names.get(&name).or_else(wildcard).copied()
    }

    /// Each source with what it gave, and whether it is beside the configuration's.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&CertificateSource, &Arc<Loaded>, bool)> {
        let all = self.sources.iter().zip(&self.loaded).enumerate();
        all.map(|(index, (source, loaded))| (source, loaded, index >= self.configured))
    }

    /// Whether visitors of `name` get this certificate.
    pub(super) fn shows(&self, name: &str, loaded: &Arc<Loaded>) -> bool {
        self.loaded.get(self.choose(name)).is_some_and(|shown| Arc::ptr_eq(shown, loaded))
    }
}

/// Without port, brackets and final dot, in lower case; addresses in their canonical spelling.
fn plain(host: &str) -> String {
    let name = match host.strip_prefix('[') {
        Some(inside) => inside.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    let address = name.parse().map(|address: IpAddr| address.to_string());
    address.unwrap_or_else(|_| name.to_ascii_lowercase())
}

fn issuer(source: &CertificateSource) -> Option<&Arc<Issuer>> {
    match source {
        CertificateSource::Acme { issuer, .. } => Some(issuer),
        _ => None,
    }
}

fn described(source: &CertificateSource) -> String {
    match source {
        CertificateSource::Files { cert, .. } => format!("the certificate {}", cert.display()),
        CertificateSource::SelfSigned { .. } => "the self-signed certificate".to_owned(),
        CertificateSource::Acme { name, .. } => {
            format!("the certificate that is ordered for {name}")
        }
        CertificateSource::Text { .. } => "the certificate of CERT_PEM".to_owned(),
    }
}
