//! Bearer tokens (RFC 6750 §2.1), and users with their passwords (RFC 7617), known by their digests.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use ptth_link::settings::Mistake;
use serde::Deserialize;

use super::authorization;
use super::credential::{Claim, Credential, Pass, Refusal};
use super::secret::{Digest, Files, Secret, ensure};
use crate::identity::Mark;

#[derive(Debug)]
pub(super) enum SharedSecret {
    Bearer(Digest),
    /// User and password, compared as UTF-8 bytes.
    Basic(Digest, Digest),
}

/// `basic = { user = "…", password_file = "…" }`, or with `password_sha256`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    user: String,
    password_file: Option<PathBuf>,
    password_sha256: Option<Digest>,
}

impl SharedSecret {
    pub(super) fn basic(
        settings: Basic,
        files: &mut Files,
    ) -> Result<Arc<dyn Credential>, Mistake> {
        let Basic { user, password_file, password_sha256 } = settings;
        // RFC 7617 §2: neither may hold control characters, and the first colon ends the user.
        ensure(
            !user.is_empty() && !user.contains(|c: char| c == ':' || c.is_control()),
            "`basic`: `user` must have a character at least, and no colon among them",
        )?;
        let password = match (&password_file, password_sha256) {
            (Some(path), None) => files.secret(path)?.digest(),
            (None, Some(digest)) => digest,
            _ => {
                return Err(Mistake::new(
                    "`basic` needs `user` and either `password_file` or `password_sha256`",
                ));
            }
        };
        Ok(Arc::new(Self::Basic(Secret::new(user).digest(), password)))
    }

    /// The token in a file or a variable; `place` is what the error calls that.
    pub(super) fn bearer(
        token: &Secret,
        place: &dyn Display,
    ) -> Result<Arc<dyn Credential>, Mistake> {
        // No field could carry more; a second line is a second token, or a comment.
        let why = "must hold one token and nothing else: visible ASCII without blanks, as a header field carries it";
        ensure(token.bytes().iter().all(u8::is_ascii_graphic), format!("{place} {why}"))?;
        Ok(Arc::new(Self::Bearer(token.digest())))
    }

    fn mark(&self) -> Mark {
        match self {
            Self::Bearer(token) => Mark::of("bearer", &[token.bytes()]),
            Self::Basic(user, password) => Mark::of("basic", &[user.bytes(), password.bytes()]),
        }
    }
}

impl Credential for SharedSecret {
    fn judge(&self, claim: &Claim<'_>) -> Result<Pass, Refusal> {
        let shown = claim.authorization.ok_or(Refusal::Absent)?;
        let (right, wrong) = match self {
            Self::Bearer(token) => {
                let shown = authorization::bearer(shown).ok_or(Refusal::Absent)?;
                (token.is_of(shown), "the bearer token is another one")
            }
            Self::Basic(user, password) => {
                let shown = authorization::basic(shown).ok_or(Refusal::Absent)?;
                // Both are always looked at: how long it takes doesn't tell whether the user exists.
                let right = user.is_of(&shown.0) & password.is_of(&shown.1);
                (right, "user or password is another one")
            }
        };
        if right { Ok(Pass::of(self.mark())) } else { Err(Refusal::Wrong(wrong)) }
    }

    fn keeps(&self, mark: Mark) -> bool {
        self.mark() == mark
    }

    fn challenge(&self) -> Option<&'static str> {
        Some(match self {
            Self::Bearer(_) => authorization::BEARER,
            Self::Basic(..) => authorization::BASIC,
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use ptth_link::crypto;
    use serde_json::json;

    use super::*;
    use crate::auth::testing::*;
    use crate::tls::testing::Scratch;

    fn login(credential: &Arc<dyn Credential>, pair: &str) -> Result<Pass, Refusal> {
        show(credential, &format!("Basic {}", STANDARD.encode(pair)))
    }

    #[test]
    fn user_and_password_both_have_to_be_right() {
        let folder = Scratch::new();
        folder.write("password", "pâss:wörd 1\r\n");
        let hash = crypto::hex(&crypto::sha256("pâss:wörd 1".as_bytes()));
        let spellings = [
            json!({ "basic": { "user": "bob", "password_file": "password" } }),
            json!({ "basic": { "user": "bob", "password_sha256": hash } }),
        ];
        let made = spellings.map(|settings| load(&folder, settings).unwrap().0);
        for credential in &made {
            let pass = login(credential, "bob:pâss:wörd 1").unwrap();
            assert_eq!(pass.name, None);
            assert!(made.iter().all(|other| other.keeps(pass.mark)));
            for wrong in [
                "bob:",
                ":pâss:wörd 1",
                "bob:pâss",
                "bob:pâss:wörd",
                "Bob:pâss:wörd 1",
                ":",
                "bob::pâss:wörd 1",
                "alice:pâss:wörd 1",
                "bob:pâss:wörd 1\n",
                &format!("bob:{hash}"),
            ] {
                let refused = Refusal::Wrong("user or password is another one");
                assert_eq!(login(credential, wrong), Err(refused), "{wrong}");
            }
            assert_eq!(login(credential, "bob"), Err(Refusal::Absent));
            assert_eq!(show(credential, "Bearer Ym9iOng="), Err(Refusal::Absent));
            assert_eq!(judge(credential, &nothing()), Err(Refusal::Absent));
            assert_eq!(credential.challenge(), Some("Basic realm=\"2ptth\", charset=\"UTF-8\""));
        }
        let alice = json!({ "basic": { "user": "alice", "password_file": "password" } });
        let (alice, _) = load(&folder, alice).unwrap();
        assert!(!alice.keeps(login(&made[0], "bob:pâss:wörd 1").unwrap().mark));
    }

    #[test]
    fn settings_that_can_not_work_are_told() {
        let folder = Scratch::new();
        folder.write("password", "s3cret");
        folder.write("empty", "\n");
        let hash = crypto::hex(&crypto::sha256(b"s3cret"));
        let table = [
            (json!({ "user": "bob" }), "`basic` needs `user` and either"),
            (
                json!({ "user": "bob", "password_file": "password", "password_sha256": hash }),
                "`basic` needs `user` and either",
            ),
            (json!({ "user": "b:b", "password_file": "password" }), "`basic`: `user` must"),
            (json!({ "user": "", "password_file": "password" }), "`basic`: `user` must"),
            (json!({ "user": "b\nb", "password_file": "password" }), "`basic`: `user` must"),
            (json!({ "user": "bob", "password_file": "empty" }), "empty is empty"),
        ];
        for (settings, expected) in table {
            let said = refused(&folder, json!({ "basic": settings }));
            assert!(said.starts_with(expected), "{said}");
        }
        let said = misspelt(json!({ "basic": { "user": "bob", "password": "s3cret" } }));
        assert!(said.contains("unknown field `password`") && !said.contains("s3cret"), "{said}");
    }

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
