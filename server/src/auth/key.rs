//! Door A's public keys as credentials.

use std::future;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use ptth_link::keys::{holds_secret, parse_keys};
use ptth_link::token::PublicKey;

use super::Key;
use super::credential::{Checking, Claim, Credential, Mark, Pass, Refusal};
use super::secret::{Content, Files, LoadError, Secret};

/// `key = "2ptth_pub_…"`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Inline(Secret);

impl Inline {
    pub(super) fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, LoadError> {
        let text = String::from_utf8_lossy(self.0.bytes());
        let keys = parse_keys(&text).map_err(LoadError::Key)?;
        if holds_secret(&text) {
            let public: Vec<_> = keys.iter().map(ToString::to_string).collect();
            files.warn(format!(
                "a `key` of the configuration is a private token; the gateway needs only the public half: {}",
                public.join(", ")
            ));
        }
        Ok(Arc::new(Keys(keys)))
    }
}

/// `key_file = "…"`: one key a line, as in the file of `--token-file`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct InFile(PathBuf);

impl InFile {
    pub(super) fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, LoadError> {
        let text = files.text(&self.0, |text| {
            if holds_secret(text) { Content::Secret } else { Content::Public }
        })?;
        let keys = parse_keys(&text).map_err(|why| LoadError::Keys { path: self.0, why })?;
        Ok(Arc::new(Keys(keys)))
    }
}

#[derive(Debug)]
struct Keys(Vec<PublicKey>);

impl Credential for Keys {
    fn check<'a>(&'a self, claim: &'a Claim<'a>) -> Checking<'a> {
        let verdict = match claim.key {
            None => Err(Refusal::Absent),
            // Public keys aren't secrets, so how long the look-up takes may tell about them.
            Some(Key::Ed25519(key)) if self.0.contains(&key) => {
                Ok(Pass { name: None, mark: mark(&key) })
            }
            Some(_) => Err(Refusal::Wrong("the key is another one")),
        };
        Box::pin(future::ready(verdict))
    }

    fn keeps(&self, of: Mark) -> bool {
        self.0.iter().any(|key| mark(key) == of)
    }

    fn challenge(&self) -> Option<&'static str> {
        None
    }

    fn keys(&self) -> &[PublicKey] {
        &self.0
    }
}

fn mark(key: &PublicKey) -> Mark {
    Mark::of("key", &[key.as_bytes()])
}
