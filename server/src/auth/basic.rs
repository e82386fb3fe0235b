//! User and password (RFC 7617), compared as UTF-8 bytes.

use std::future;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::authorization;
use super::credential::{Checking, Claim, Credential, Mark, Pass, Refusal};
use super::secret::{Digest, Files, LoadError, Secret};

/// `basic = { user = "…", password_file = "…" }`, or with `password_sha256`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    user: String,
    password_file: Option<PathBuf>,
    password_sha256: Option<Digest>,
}

impl Settings {
    pub(super) fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, LoadError> {
        // RFC 7617 §2: neither may hold control characters, and the first colon ends the user.
        if self.user.is_empty() || self.user.contains(|c: char| c == ':' || c.is_control()) {
            return Err(LoadError::settings(
                "`basic`: `user` must have a character at least, and no colon among them",
            ));
        }
        let password = match (&self.password_file, self.password_sha256) {
            (Some(path), None) => files.secret(path)?.digest(),
            (None, Some(digest)) => digest,
            _ => {
                return Err(LoadError::settings(
                    "`basic` needs `user` and either `password_file` or `password_sha256`",
                ));
            }
        };
        Ok(Arc::new(Basic { user: Secret::new(self.user).digest(), password }))
    }
}

#[derive(Debug)]
struct Basic {
    user: Digest,
    password: Digest,
}

impl Credential for Basic {
    fn check<'a>(&'a self, claim: &'a Claim<'a>) -> Checking<'a> {
        let verdict = match claim.authorization.and_then(authorization::basic) {
            None => Err(Refusal::Absent),
            // Both are always looked at: how long it takes doesn't tell whether the user exists.
            Some((user, password)) if self.user.is_of(&user) & self.password.is_of(&password) => {
                Ok(Pass { name: None, mark: self.mark() })
            }
            Some(_) => Err(Refusal::Wrong("user or password is another one")),
        };
        Box::pin(future::ready(verdict))
    }

    fn keeps(&self, mark: Mark) -> bool {
        self.mark() == mark
    }

    fn challenge(&self) -> Option<&'static str> {
        Some(authorization::BASIC)
    }
}

impl Basic {
    fn mark(&self) -> Mark {
        Mark::of("basic", &[self.user.bytes(), self.password.bytes()])
    }
}
