//! Bearer tokens (RFC 6750 §2.1), known by their digest.

use std::fmt::Display;
use std::sync::Arc;

use ptth_link::settings::Mistake;

use super::authorization;
use super::credential::{Claim, Credential, Pass, Refusal};
use super::secret::{Digest, Secret};
use crate::identity::Mark;

#[derive(Debug)]
pub(super) struct Bearer {
    digest: Digest,
    mark: Mark,
}

impl Bearer {
    pub(super) fn known(digest: Digest) -> Arc<dyn Credential> {
        Arc::new(Self { digest, mark: Mark::of("bearer", &[digest.bytes()]) })
    }

    /// The token in a file or a variable; `place` is what the error calls that.
    pub(super) fn plain(
        token: &Secret,
        place: &dyn Display,
    ) -> Result<Arc<dyn Credential>, Mistake> {
        // No field could carry more; a second line is a second token, or a comment.
        if !token.bytes().iter().all(u8::is_ascii_graphic) {
            return Err(Mistake::new(format!(
                "{place} must hold one token and nothing else: visible ASCII without blanks, as a header field carries it"
            )));
        }
        Ok(Self::known(token.digest()))
    }
}

impl Credential for Bearer {
    fn judge(&self, claim: &Claim<'_>) -> Result<Pass, Refusal> {
        match claim.authorization.and_then(authorization::bearer) {
            None => Err(Refusal::Absent),
            Some(token) if self.digest.is_of(token) => Ok(Pass::of(self.mark)),
            Some(_) => Err(Refusal::Wrong("the bearer token is another one")),
        }
    }

    fn keeps(&self, mark: Mark) -> bool {
        self.mark == mark
    }

    fn challenge(&self) -> Option<&'static str> {
        Some(authorization::BEARER)
    }
}

#[cfg(test)]
mod tests {
    use ptth_link::crypto;
    use serde_json::json;

    use super::*;
    use crate::auth::testing::*;
    use crate::tls::testing::Scratch;

    #[test]
    fn a_bearer_token_is_known_plain_and_hashed() {
        let folder = Scratch::new();
        folder.write("token", "pass-w0rd~+/=\n");
        let hash = crypto::hex(&crypto::sha256(b"pass-w0rd~+/="));
        let spellings = [
            json!({ "bearer_file": "token" }),
            json!({ "bearer_sha256": hash }),
            json!({ "bearer_sha256": format!(" sha256:{} ", hash.to_uppercase()) }),
        ];
        let made = spellings.map(|settings| load(&folder, settings).unwrap().0);
        for credential in &made {
            let pass = show(credential, "bearer pass-w0rd~+/=").unwrap();
            assert_eq!(pass.name, None);
            // Whether it is written plain or hashed, it is the same secret after a reload.
            assert!(made.iter().all(|other| other.keeps(pass.mark)));
            for wrong in ["pass-w0rd~+/", "pass-w0rd~+/==", "Pass-w0rd~+/=", "x", &hash] {
                let refused = Refusal::Wrong("the bearer token is another one");
                assert_eq!(show(credential, &format!("Bearer {wrong}")), Err(refused));
            }
            for absent in ["", "Bearer", "Basic cGFzcy13MHJkfisvPTo=", "pass-w0rd~+/="] {
                assert_eq!(show(credential, absent), Err(Refusal::Absent), "{absent}");
            }
            assert_eq!(judge(credential, &nothing()), Err(Refusal::Absent));
            assert_eq!(credential.challenge(), Some("Bearer"));
            assert!(credential.keys().is_empty());
        }
        folder.write("token", "another");
        let (another, _) = load(&folder, json!({ "bearer_file": "token" })).unwrap();
        let pass = show(&another, "Bearer another").unwrap();
        assert!(made.iter().all(|other| !other.keeps(pass.mark)));
    }

    /// The runner of the tests sets these variables, whatever they are about.
    #[test]
    fn a_bearer_token_may_be_in_the_environment() {
        let folder = Scratch::new();
        let version = env!("CARGO_PKG_VERSION");
        let (credential, _) = load(&folder, json!({ "bearer_env": "CARGO_PKG_VERSION" })).unwrap();
        let pass = show(&credential, &format!("Bearer {version}")).unwrap();
        folder.write("token", version);
        let (same, _) = load(&folder, json!({ "bearer_file": "token" })).unwrap();
        assert!(same.keeps(pass.mark));
        let wrong = Refusal::Wrong("the bearer token is another one");
        assert_eq!(show(&credential, "Bearer CARGO_PKG_VERSION"), Err(wrong));
        for name in ["", "=", "A=B", "A\0", "s3cret-in-the-place-of-a-name"] {
            let said = refused(&folder, json!({ "bearer_env": name }));
            assert!(said.contains("isn't set, or is empty"), "{said}");
            assert!(name.len() < 9 || !said.contains(name), "{said}");
        }
        let said = refused(&folder, json!({ "bearer_env": "CARGO_PKG_DESCRIPTION" }));
        assert!(said.contains("must hold one token"), "{said}");
    }

    #[test]
    fn a_token_that_nobody_can_send_is_refused() {
        let folder = Scratch::new();
        for text in ["one two", "one\ntwo", "tök", "one\0"] {
            folder.write("token", text);
            let said = refused(&folder, json!({ "bearer_file": "token" }));
            assert!(said.starts_with("token must hold one token"), "{said}");
        }
        let hash = crypto::hex(&crypto::sha256(b"x"));
        let of_nothing = crypto::hex(&crypto::sha256(b""));
        for text in ["", "s3cret", &hash[1..], &format!("{hash}0"), &of_nothing] {
            let said = misspelt(json!({ "bearer_sha256": text }));
            assert!(said.contains("64 hexadecimal digits"), "{said}");
            assert!(text.is_empty() || !said.contains(text), "{said}");
        }
    }
}
