//! Files with secrets, and atomic replacement of files.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
#[cfg(unix)]
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::crypto;

/// Replaces a file: a reader sees the old text or the new one. A new file is readable by its owner alone if it is
/// `secret`; on Windows, which has no modes, the folder says who may read it. After an error the old file stays. Blocks.
pub fn replace(path: &Path, text: impl AsRef<[u8]>, secret: bool) -> io::Result<()> {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".{}", crypto::hex(&crypto::random::<6>())));
    let part = path.with_file_name(name);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(if secret { 0o600 } else { 0o666 });
    #[cfg(not(unix))]
    let _ = secret;
    let written = options.open(&part).and_then(|mut file| {
        file.write_all(text.as_ref())?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    written.inspect_err(|_| drop(fs::remove_file(&part)))
}

/// The bytes of a file, which the sentence about an error calls `what`. Blocks.
pub fn read(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|err| {
        let path = path.display();
        format!(
            "{what} {path} can't be read ({err}); check its path and that this user may read it"
        )
    })
}

/// A warning, if every user of this machine can read a file that holds `what`.
pub fn exposed(path: &Path, what: &str) -> Option<String> {
    #[cfg(unix)]
    let is_exposed = path.metadata().is_ok_and(|it| it.permissions().mode() & 0o004 != 0);
    #[cfg(not(unix))]
    let is_exposed = false;
    let path = path.display();
    is_exposed.then(|| {
        format!("{path} holds {what}, and every user of this machine can read it; `chmod 600` it")
    })
}
