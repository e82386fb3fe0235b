//! Writes each request to a file of its own, as the origin would have got it over HTTP/1.1: a fixture for tests.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use log::warn;
use ptth_link::files;

use super::tape::Tape;

/// Takes requests to a thread that writes them. The exchange doesn't wait for the disk.
#[derive(Debug)]
pub(super) struct Capture(SyncSender<(String, Vec<u8>)>);

impl Capture {
    pub(super) fn to(folder: PathBuf) -> Self {
        let (files, written) = sync_channel::<(String, Vec<u8>)>(QUEUE);
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the store, which has the sender"
        )]
        thread::spawn(move || {
            for (name, bytes) in written {
                let path = folder.join(name);
                if let Err(err) =
                    fs::create_dir_all(&folder).and_then(|()| files::replace(&path, bytes, true))
                {
                    warn!("inspect: {} can't be written: {err}", path.display());
                }
            }
        });
        Self(files)
    }

    pub(super) fn take(&self, tape: &Tape) {
        let state = tape.state.lock();
        let target = tape.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if tape.protocol.is_some() || !state.request.is_whole() {
            return warn!(
                "inspect: {} {target:?} isn't captured: its body isn't kept as a whole",
                tape.method
            );
        }
        let mut bytes = format!("{} {target} HTTP/1.1\r\n", tape.method).into_bytes();
        let host = tape.uri.authority().map_or("", Authority::as_str);
        let host = (&HOST, host.as_bytes());
        let fields = tape.fields.iter().map(|(name, value)| (name, value.as_bytes()));
        for (name, value) in [host].into_iter().chain(fields) {
            bytes.extend([name.as_str().as_bytes(), b": ", value, b"\r\n"].concat());
        }
        let body = &state.request.bytes;
        if !body.is_empty() && !tape.fields.contains_key(http::header::CONTENT_LENGTH) {
            bytes.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
        }
        bytes.extend([b"\r\n", body.as_slice()].concat());
        let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let path: String = tape.uri.path().chars().take(LONGEST).map(word).collect();
        let time = tape.began().replace([':', '-'], "");
        let name = format!("{time}-{:06}-{}{path}.http", tape.id, tape.method);
        if self.0.try_send((name, bytes)).is_err() {
            warn!("inspect: {} {target:?} isn't captured: the disk is too slow", tape.method);
        }
    }
}

/// Requests that may wait for the disk.
const QUEUE: usize = 256;
/// Characters of a path in a file's name.
const LONGEST: usize = 60;
