//! Door A's public keys as credentials.

use std::path::Path;
use std::sync::Arc;

use ptth_link::settings::Mistake;
use ptth_link::token::PublicKey;
use ptth_link::token::{holds_secret, parse_keys};

use super::credential::{Claim, Credential, Pass, Refusal};
use super::secret::{Files, Secret};
use crate::identity::{Key, Mark};

/// `key = "2ptth_pub_…"`.
pub(super) fn inline(key: &Secret, files: &mut Files) -> Result<Arc<dyn Credential>, Mistake> {
    let text = String::from_utf8_lossy(key.bytes());
    let keys = parse_keys(&text).map_err(|why| Mistake::new(format!("`key`: {why}")))?;
    if holds_secret(&text) {
        let public: Vec<_> = keys.iter().map(ToString::to_string).collect();
        files.warn(format!(
            "a `key` of the configuration is a private token; the gateway needs only the public half: {}",
            public.join(", ")
        ));
    }
    Ok(Arc::new(Keys(keys)))
}

/// `key_file = "…"`: one key a line, as in the file of `--token-file`.
pub(super) fn in_file(path: &Path, files: &mut Files) -> Result<Arc<dyn Credential>, Mistake> {
    let text = files.text(path)?;
    if holds_secret(&text) {
        files.warn_if_exposed(path);
    }
    let wrong = |why| Mistake::new(format!("the key file {}: {why}", path.display()));
    Ok(Arc::new(Keys(parse_keys(&text).map_err(wrong)?)))
}

#[derive(Debug)]
struct Keys(Vec<PublicKey>);

impl Credential for Keys {
    fn judge(&self, claim: &Claim<'_>) -> Result<Pass, Refusal> {
        match claim.key {
            None => Err(Refusal::Absent),
            // Public keys aren't secrets, so how long the look-up takes may tell about them.
            Some(Key::Ed25519(key)) if self.0.contains(&key) => Ok(Pass::of(mark(&key))),
            Some(_) => Err(Refusal::Wrong("the key is another one")),
        }
    }

    fn keeps(&self, of: Mark) -> bool {
        self.0.iter().any(|key| mark(key) == of)
    }

    fn keys(&self) -> &[PublicKey] {
        &self.0
    }
}

fn mark(key: &PublicKey) -> Mark {
    Mark::of("key", &[key.as_bytes()])
}

#[cfg(test)]
mod tests {
    use ptth_link::token::Token;
    use serde_json::json;

    use super::*;
    use crate::auth::testing::*;
    use crate::tls::testing::Scratch;

    fn shows(credential: &Arc<dyn Credential>, key: Key) -> Result<Pass, Refusal> {
        judge(credential, &Claim { key: Some(key), ..nothing() })
    }

    #[test]
    fn a_key_lets_in_who_has_proven_to_hold_it() {
        let (token, other) = (Token::generate(), Token::generate());
        let folder = Scratch::new();
        let text = format!("# laptop\r\n{}\r\n", token.public());
        folder.write("keys", format!("\u{feff}{text}{}\n", Token::generate().public()));
        for settings in
            [json!({ "key": token.public().to_string() }), json!({ "key_file": "keys" })]
        {
            let (credential, files) = load(&folder, settings).unwrap();
            assert_eq!(files.warnings, [] as [String; 0]);
            let pass = shows(&credential, Key::Ed25519(token.public())).unwrap();
            assert!(pass.name.is_none() && credential.keeps(pass.mark));
            assert_eq!(credential.keys()[0], token.public());
            for wrong in [Key::Ed25519(other.public()), Key::Other(*token.public().as_bytes())] {
                assert!(matches!(shows(&credential, wrong), Err(Refusal::Wrong(_))));
            }
            // The public half is no secret, so showing it proves nothing.
            let public = format!("Bearer {}", token.public());
            assert_eq!(show(&credential, &public), Err(Refusal::Absent));
            assert_eq!(judge(&credential, &nothing()), Err(Refusal::Absent));
            assert!(credential.challenge().is_none());
            let (others, _) = load(&folder, json!({ "key": other.public().to_string() })).unwrap();
            assert!(!others.keeps(pass.mark));
        }
        assert_eq!(load(&folder, json!({ "key_file": "keys" })).unwrap().0.keys().len(), 2);
    }

    #[test]
    fn a_private_half_works_and_the_warning_tells_the_public_one() {
        let token = Token::generate();
        let folder = Scratch::new();
        // There, so that `load` looks whether anything shows it.
        folder.write("token", token.reveal());
        let (credential, files) = load(&folder, json!({ "key": token.reveal() })).unwrap();
        assert_eq!(credential.keys(), [token.public()]);
        let [warning] = &files.warnings[..] else { panic!("{:?}", files.warnings) };
        assert!(warning.ends_with(&token.public().to_string()), "{warning}");
    }

    #[test]
    fn what_is_no_key_is_told_without_quoting_it() {
        let folder = Scratch::new();
        folder.write("keys", "\n2ptth_pub_s3cret\n");
        folder.write("none", "# none\n");
        for (settings, expected) in [
            (json!({ "key": "" }), "`key`: there is no key in it"),
            (json!({ "key": "2ptth_s3cret" }), "`key`: "),
            (json!({ "key_file": "keys" }), "the key file keys: line 2: "),
            (json!({ "key_file": "none" }), "the key file none: there is no key in it"),
            (json!({ "key_file": "gone" }), "gone can't be read"),
        ] {
            let said = refused(&folder, settings);
            assert!(said.starts_with(expected) && !said.contains("s3cret"), "{said}");
        }
    }
}
