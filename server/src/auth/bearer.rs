//! Bearer tokens (RFC 6750 §2.1), known by their digest.

use std::future;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::authorization;
use super::credential::{Checking, Claim, Credential, Mark, Pass, Refusal};
use super::secret::{Digest, Files, LoadError};

/// `bearer_sha256 = "…"`: the digest of the token's bytes, so that the configuration holds no secret.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Hashed(Digest);

impl Hashed {
    pub(super) fn load(self, _: &mut Files) -> Result<Arc<dyn Credential>, LoadError> {
        Ok(Arc::new(Bearer(self.0)))
    }
}

/// `bearer_file = "…"`: the token itself.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct InFile(PathBuf);

impl InFile {
    pub(super) fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, LoadError> {
        let token = files.secret(&self.0)?;
        // No field could carry it; a second line is a second token, or a comment.
        if !token.bytes().iter().all(u8::is_ascii_graphic) {
            return Err(LoadError::NotOneWord { path: self.0 });
        }
        Ok(Arc::new(Bearer(token.digest())))
    }
}

#[derive(Debug)]
struct Bearer(Digest);

impl Credential for Bearer {
    fn check<'a>(&'a self, claim: &'a Claim<'a>) -> Checking<'a> {
        let verdict = match claim.authorization.and_then(authorization::bearer) {
            None => Err(Refusal::Absent),
            Some(token) if self.0.is_of(token) => Ok(Pass { name: None, mark: self.mark() }),
            Some(_) => Err(Refusal::Wrong("the bearer token is another one")),
        };
        Box::pin(future::ready(verdict))
    }

    fn keeps(&self, mark: Mark) -> bool {
        self.mark() == mark
    }

    fn challenge(&self) -> Option<&'static str> {
        Some(authorization::BEARER)
    }
}

impl Bearer {
    fn mark(&self) -> Mark {
        Mark::of("bearer", &[self.0.bytes()])
    }
}
