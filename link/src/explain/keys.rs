//! The keys of TLS sessions, written to a file for a program that reads along, as Wireshark does.
//!
//! Off, unless the program was started with SSLKEYLOGFILE; and of tunnels and visitors' connections alone.

use std::fs::OpenOptions;
use std::sync::Arc;

use rustls::{KeyLog, KeyLogFile, NoKeyLog};

use crate::settings::{Env, Mistake, variable};

/// The warning, if the keys are to be written.
///
/// # Errors
/// The variable isn't text.
pub fn asked(env: &Env<'_>) -> Result<Option<String>, Mistake> {
    let asked = variable(env, VARIABLE, false)?;
    Ok(asked.map(|_| WARNING.to_owned()))
}

/// Where TLS is to write keys: the file of the variable, if that is `wanted`. Blocks.
pub fn log(wanted: bool) -> Arc<dyn KeyLog> {
    let Some(path) = std::env::var_os(VARIABLE).filter(|_| wanted) else {
        return Arc::new(NoKeyLog);
    };
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    // rustls opens the file itself, and would let every user of the machine read it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    if let Err(err) = options.open(path) {
        log::warn!("tls: the file of SSLKEYLOGFILE can't be written: {err}");
    }
    Arc::new(KeyLogFile::new())
}

const VARIABLE: &str = "SSLKEYLOGFILE";
const WARNING: &str = "SSLKEYLOGFILE is set: the keys of the TLS sessions are written to that file, so that a reader of the file can decrypt them; unset it when you are done";
