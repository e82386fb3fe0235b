//! Files for programs that read some: a folder that goes away, and certificates to put there.

use std::fs;
use std::path::{Path, PathBuf};

use ptth_link::crypto;
use rcgen::{CertificateParams, KeyPair};

/// A folder for one test. Dropping it removes it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one.
    pub fn new() -> Self {
        let name = format!("2ptth-test-{}", crypto::hex(&crypto::random::<8>()));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    /// The path of `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file at once, as a careful program replaces one: nobody ever reads half of it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let part = self.path(&format!("{name}.part"));
        fs::write(&part, content).expect("a file");
        make_private(&part);
        fs::rename(&part, &path).expect("a file");
        path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(unix)]
fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
}

#[cfg(not(unix))]
fn make_private(_: &Path) {}

/// A certificate that signs for itself, and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate, PEM.
    pub cert: String,
    /// The key, PEM.
    pub key: String,
    /// The certificate, DER.
    pub der: Vec<u8>,
}

impl Certificate {
    /// For these names.
    pub fn of(names: &[&str]) -> Self {
        Self::with(names, |_| {})
    }

    /// The same, after `change`.
    pub fn with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let pair = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&pair).expect("a certificate");
        Self { cert: certificate.pem(), key: pair.serialize_pem(), der: certificate.der().to_vec() }
    }

    /// Writes both halves to `folder` and returns their paths.
    pub fn write(&self, folder: &Folder) -> (PathBuf, PathBuf) {
        (folder.write("cert.pem", &self.cert), folder.write("key.pem", &self.key))
    }

    /// By which a client may know it.
    pub fn pin(&self) -> [u8; 32] {
        crypto::sha256(&self.der)
    }
}
