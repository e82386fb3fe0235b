//! Secrets, the files that hold them, and what can be wrong with either.
//!
//! Invariant: nothing here prints a secret; comparisons take the same time however much is right.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ptth_client::tls;
use rustls::RootCertStore;
use serde::{Deserialize, Deserializer, de};

use ptth_link::settings::Mistake;
use ptth_link::{crypto, files};

#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes. They go into a computation, nowhere else.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn digest(&self) -> Digest {
        Digest(crypto::sha256(&self.0))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.digest().is_of(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// The SHA-256 of a secret. No output shows it: a weak secret could be guessed from it.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Takes a time that depends on the length of `shown` alone.
    pub fn is_of(&self, shown: &[u8]) -> bool {
        crypto::same(&crypto::sha256(shown), &self.0)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(redacted)")
    }
}

/// 64 hexadecimal digits. The digest of nothing is refused: an empty secret lets every backend in.
impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.trim();
        let digits = digits.strip_prefix("sha256:").unwrap_or(digits);
        let digest = crypto::parse_pin(&format!("sha256:{digits}"));
        let digest = digest.filter(|digest| *digest != crypto::sha256(b""));
        digest.map(Self).ok_or_else(|| de::Error::custom(NOT_A_DIGEST))
    }
}

const NOT_A_DIGEST: &str = "must be the SHA-256 of a secret that isn't empty, 64 hexadecimal digits, as `printf %s \"$SECRET\" | sha256sum` prints them";

/// Reads the files that the configuration names, and remembers what it saw.
#[derive(Debug)]
pub struct Files {
    base: PathBuf,
    /// For the operator, a sentence each; none of them prevents the start.
    pub warnings: Vec<String>,
    /// Over the path and the content of each file so far, and over randomness of this process: no weak secret can be
    /// guessed from it, and another process has another digest.
    pub digest: [u8; 32],
}

impl Files {
    /// `base` is where relative paths begin: the folder of the configuration file.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        static SALT: LazyLock<[u8; 32]> = LazyLock::new(crypto::random);
        Self { base: base.into(), warnings: Vec::new(), digest: *SALT }
    }

    pub fn warn(&mut self, warning: String) {
        // Several routes may name the same file.
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Reads a secret, without a byte order mark, blanks and line ends around it. An empty one is an error.
    pub fn secret(&mut self, path: &Path) -> Result<Secret, Mistake> {
        let bytes = self.bytes(path)?;
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes).trim_ascii();
        let why = "is empty; an empty secret would let every backend in";
        ensure_file(path, !bytes.is_empty(), why)?;
        self.warn_if_exposed(path);
        Ok(Secret::new(bytes))
    }

    /// Takes a secret from the environment of this process, without blanks and line ends around it. An empty one is
    /// an error, which doesn't quote the name: a user may have written the secret in its place.
    pub fn variable(&mut self, name: &[u8]) -> Result<Secret, Mistake> {
        // The system's function panics at these.
        let name = std::str::from_utf8(name).ok();
        let name = name.filter(|name| !name.is_empty() && !name.contains(['=', '\0']));
        let value = name.and_then(std::env::var_os).unwrap_or_default();
        let secret = value.as_encoded_bytes().trim_ascii();
        ensure(
            !secret.is_empty(),
            "the environment variable that is named here isn't set, or is empty; what stands here is its name, not the secret",
        )?;
        Ok(Secret::new(secret))
    }

    pub fn text(&mut self, path: &Path) -> Result<String, Mistake> {
        let bytes = self.bytes(path)?;
        String::from_utf8(bytes).map_err(|_| about(path, "isn't UTF-8 text"))
    }

    /// The certificates of authorities, PEM.
    pub(crate) fn roots(&mut self, path: &Path) -> Result<RootCertStore, Mistake> {
        let pem = self.text(path)?;
        tls::roots(pem.as_bytes()).map(|(_, roots)| roots).map_err(|why| about(path, why))
    }

    pub(crate) fn bytes(&mut self, path: &Path) -> Result<Vec<u8>, Mistake> {
        let mut bytes = Vec::new();
        let file = File::open(self.base.join(path)).map_err(|err| unreadable(path, &err))?;
        let read = file.take(LONGEST + 1).read_to_end(&mut bytes);
        read.map_err(|err| unreadable(path, &err))?;
        let why = "is longer than a megabyte, so it is neither a secret nor a certificate; check the path";
        ensure_file(path, bytes.len() as u64 <= LONGEST, why)?;
        let name = crypto::sha256(path.as_os_str().as_encoded_bytes());
        self.digest = crypto::sha256(&[self.digest, name, crypto::sha256(&bytes)].concat());
        Ok(bytes)
    }

    pub(crate) fn warn_if_exposed(&mut self, path: &Path) {
        files::exposed(&self.base.join(path), "a secret").into_iter().for_each(|it| self.warn(it));
    }
}

/// A key that only root may read is what containers meet most, so it gets advice of its own.
fn unreadable(path: &Path, err: &io::Error) -> Mistake {
    if err.kind() != io::ErrorKind::PermissionDenied {
        return about(path, format!("can't be read ({err}); check the path"));
    }
    Mistake::new(format!(
        "this user may not read {}, as happens in a container that isn't root's: run it with `--user` set to the file's owner, let an ACL allow it (`setfacl -R -m u:UID:rX` on its directories), or give a copy that it may read",
        path.display()
    ))
}

/// More is no secret, key or certificate: a path that was mistaken, maybe a device without an end.
const LONGEST: u64 = 1 << 20;

pub(crate) fn ensure(holds: bool, otherwise: impl fmt::Display) -> Result<(), Mistake> {
    if holds { Ok(()) } else { Err(Mistake::new(otherwise)) }
}

pub(super) fn ensure_file(path: &Path, holds: bool, otherwise: &str) -> Result<(), Mistake> {
    if holds { Ok(()) } else { Err(about(path, otherwise)) }
}

/// What is wrong with a file, as the end of a sentence that begins with its path.
pub(crate) fn about(path: &Path, why: impl fmt::Display) -> Mistake {
    Mistake::new(format!("{} {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::Scratch;

    #[test]
    fn what_editors_and_windows_put_around_a_secret_is_ignored() {
        let folder = Scratch::new();
        for text in ["s3cret", "s3cret\n", "s3cret\r\n", "\u{feff}s3cret", "\u{feff} s3cret\t\r\n"]
        {
            folder.write("secret", text);
            let secret = Files::new(&folder.0).secret(Path::new("secret")).unwrap();
            assert_eq!(secret.bytes(), b"s3cret", "{text:?}");
            assert!(secret.digest().is_of(b"s3cret") && !secret.digest().is_of(b"s3cre"));
        }
        // Inside, nothing is.
        folder.write("secret", "\u{feff}two \r\nwords\n");
        let secret = Files::new(&folder.0).secret(Path::new("secret")).unwrap();
        assert_eq!(secret.bytes(), b"two \r\nwords");
    }

    #[test]
    fn a_secret_that_is_not_there_is_an_error_with_its_path() {
        let folder = Scratch::new();
        folder.write("long", vec![b'x'; (1 << 20) + 1]);
        for text in ["", "\n", "\u{feff}", "\u{feff} \r\n"] {
            folder.write("empty", text);
            let error = Files::new(&folder.0).secret(Path::new("empty")).unwrap_err();
            assert!(error.to_string().starts_with("empty is empty"), "{text:?}: {error}");
        }
        for (path, said) in [
            ("gone", "gone can't be read"),
            (".", ". can't be read"),
            ("long", "long is longer than a megabyte"),
        ] {
            let error = Files::new(&folder.0).secret(Path::new(path)).unwrap_err();
            assert!(error.to_string().starts_with(said), "{error}");
        }
        folder.write("binary", b"\xff\xfe");
        let denied = unreadable(Path::new("/x/key"), &io::ErrorKind::PermissionDenied.into());
        let sentence = denied.to_string();
        assert!(sentence.contains("/x/key") && sentence.contains("`--user`"), "{sentence}");
        let error = Files::new(&folder.0).text(Path::new("binary"));
        assert_eq!(error.unwrap_err().to_string(), "binary isn't UTF-8 text");
    }

    #[test]
    fn paths_begin_at_the_folder_unless_they_are_absolute() {
        let (folder, other) = (Scratch::new(), Scratch::new());
        folder.write("secret", "here");
        let absolute = other.write("secret", "there");
        let mut files = Files::new(&folder.0);
        assert_eq!(files.secret(Path::new("secret")).unwrap().bytes(), b"here");
        assert_eq!(files.secret(&absolute).unwrap().bytes(), b"there");
    }

    #[test]
    fn the_digest_changes_with_any_content_and_with_the_list() {
        let folder = Scratch::new();
        let digest = |paths: &[&str]| {
            let mut files = Files::new(&folder.0);
            for path in paths {
                files.secret(Path::new(path)).unwrap();
            }
            files.digest
        };
        folder.write("a", "1");
        folder.write("b", "2");
        let before = digest(&["a", "b"]);
        assert_eq!(digest(&["a", "b"]), before);
        for other in [&["b", "a"][..], &["a"], &["a", "b", "b"], &[]] {
            assert_ne!(digest(other), before, "{other:?}");
        }
        folder.write("b", "3");
        assert_ne!(digest(&["a", "b"]), before);
        folder.write("a", "2");
        folder.write("b", "1");
        assert_ne!(digest(&["a", "b"]), before);
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_can_read_is_a_warning_once() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Scratch::new();
        let path = folder.write("secret", "s3cret");
        let warnings = |mode, secret: bool| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let mut files = Files::new(&folder.0);
            for _ in 0..2 {
                match secret {
                    true => drop(files.secret(Path::new("secret")).unwrap()),
                    false => drop(files.text(Path::new("secret")).unwrap()),
                }
            }
            files.warnings
        };
        let expected = format!(
            "{} holds a secret, and every user of this machine can read it; `chmod 600` it",
            path.display()
        );
        assert_eq!(warnings(0o644, true), [expected]);
        let none: [&str; 0] = [];
        assert_eq!(warnings(0o644, false), none);
        assert_eq!(warnings(0o640, true), none);
        assert_eq!(warnings(0o600, true), none);
    }

    #[test]
    fn secrets_and_their_digests_never_show() {
        let secret = Secret::new("s3cret");
        let hidden = format!("{secret:?} {:?}", secret.digest());
        assert_eq!(hidden, "Secret(redacted) Digest(redacted)");
    }
}
