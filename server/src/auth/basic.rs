//! User and password (RFC 7617), compared as UTF-8 bytes.

use std::path::PathBuf;
use std::sync::Arc;

use ptth_link::settings::Mistake;
use serde::Deserialize;

use super::authorization;
use super::credential::{Claim, Credential, Pass, Refusal};
use super::secret::{Digest, Files, Secret};
use crate::identity::Mark;

/// `basic = { user = "…", password_file = "…" }`, or with `password_sha256`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    user: String,
    password_file: Option<PathBuf>,
    password_sha256: Option<Digest>,
}

impl Settings {
    pub(super) fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, Mistake> {
        // RFC 7617 §2: neither may hold control characters, and the first colon ends the user.
        if self.user.is_empty() || self.user.contains(|c: char| c == ':' || c.is_control()) {
            return Err(Mistake::new(
                "`basic`: `user` must have a character at least, and no colon among them",
            ));
        }
        let password = match (&self.password_file, self.password_sha256) {
            (Some(path), None) => files.secret(path)?.digest(),
            (None, Some(digest)) => digest,
            _ => {
                return Err(Mistake::new(
                    "`basic` needs `user` and either `password_file` or `password_sha256`",
                ));
            }
        };
        let user = Secret::new(self.user).digest();
        let mark = Mark::of("basic", &[user.bytes(), password.bytes()]);
        Ok(Arc::new(Basic { user, password, mark }))
    }
}

#[derive(Debug)]
struct Basic {
    user: Digest,
    password: Digest,
    mark: Mark,
}

impl Credential for Basic {
    fn judge(&self, claim: &Claim<'_>) -> Result<Pass, Refusal> {
        match claim.authorization.and_then(authorization::basic) {
            None => Err(Refusal::Absent),
            // Both are always looked at: how long it takes doesn't tell whether the user exists.
            Some((user, password)) if self.user.is_of(&user) & self.password.is_of(&password) => {
                Ok(Pass::of(self.mark))
            }
            Some(_) => Err(Refusal::Wrong("user or password is another one")),
        }
    }

    fn keeps(&self, mark: Mark) -> bool {
        self.mark == mark
    }

    fn challenge(&self) -> Option<&'static str> {
        Some(authorization::BASIC)
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
}
