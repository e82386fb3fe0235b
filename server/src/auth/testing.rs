//! Credentials as a configuration makes them, and backends that show something.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::HeaderValue;
use ptth_link::settings::Mistake;
use serde_json::Value;

use super::{Claim, Credential, Files, Pass, Refusal, Settings};
use crate::tls::testing::Scratch;

/// Makes a credential of its settings. Files are looked for in `folder`.
pub(crate) fn load(
    folder: &Scratch,
    settings: Value,
) -> Result<(Arc<dyn Credential>, Files), Mistake> {
    let settings: Settings = serde_json::from_value(settings).unwrap();
    // Whatever it is made of may be shown in a log.
    assert_hidden(folder, &settings);
    let mut files = Files::new(&folder.0);
    let credential = settings.load(&mut files)?;
    assert_hidden(folder, &(&credential, &files));
    Ok((credential, files))
}

/// Why no credential can be made of these settings, as the operator reads it.
pub(crate) fn refused(folder: &Scratch, settings: Value) -> String {
    let error = load(folder, settings).unwrap_err();
    assert_hidden(folder, &(&error, error.to_string()));
    error.to_string()
}

/// What is wrong with the spelling of settings.
pub(crate) fn misspelt(settings: Value) -> String {
    serde_json::from_value::<Settings>(settings).unwrap_err().to_string()
}

/// Shows an Authorization value to a credential that decides at once.
pub(crate) fn show(credential: &Arc<dyn Credential>, value: &str) -> Result<Pass, Refusal> {
    let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
    judge(credential, &Claim { authorization: Some(&value), ..nothing() })
}

/// Asks a credential that decides at once.
pub(crate) fn judge(credential: &Arc<dyn Credential>, claim: &Claim<'_>) -> Result<Pass, Refusal> {
    let mut checking = credential.check(claim);
    match checking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(verdict) => verdict,
        Poll::Pending => panic!("it waits for something"),
    }
}

/// A backend that shows nothing.
pub(crate) fn nothing() -> Claim<'static> {
    let address = [192, 0, 2, 7].into();
    Claim { key: None, chain: &[], authorization: None, address, hosts: &[], name: None }
}

/// Fails if debug output of `shown` has any line of a file in the folder, in text or bytes.
#[track_caller]
fn assert_hidden(folder: &Scratch, shown: &dyn std::fmt::Debug) {
    let shown = format!("{shown:?} {shown:#?}");
    for entry in std::fs::read_dir(&folder.0).unwrap() {
        let content = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        for line in content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            // PEM's own lines, and what is public.
            if line.len() < 4 || line.starts_with(b"-----") || line.starts_with(b"2ptth_pub_") {
                continue;
            }
            let (text, bytes) = (String::from_utf8_lossy(line), format!("{line:?}"));
            let found =
                shown.contains(text.as_ref()) || shown.contains(bytes.trim_matches(['[', ']']));
            assert!(!found, "a secret shows: {shown}");
        }
    }
}
