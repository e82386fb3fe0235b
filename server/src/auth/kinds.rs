//! The kinds of credentials: the one list of them.
//!
//! The name of a variant, in snake_case, is the key in the configuration: `{ bearer_file = "blog.secret" }`.

use std::path::PathBuf;
use std::sync::Arc;

use ptth_link::settings::Mistake;
use serde::Deserialize;

use super::credential::Credential;
use super::secret::{Digest, Files, Secret};
use super::shared_secret::{Basic, SharedSecret};
use super::{authority, external, jwt, key};

/// A credential as the configuration writes it: a table with the kind as its one key.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settings {
    Key(Secret),
    /// A file of such keys, one a line, as that of `--token-file`.
    KeyFile(PathBuf),
    /// The SHA-256 of a bearer token, in hexadecimal, so that the configuration holds no secret.
    BearerSha256(Digest),
    BearerFile(PathBuf),
    /// A variable of this process's environment, which changes at a restart only. No output shows its name: a
    /// user may have written the secret in its place.
    BearerEnv(Secret),
    Basic(Basic),
    Jwt(jwt::Settings),
    External(external::Settings),
    ClientCa(authority::Settings),
}

pub const KINDS: [&str; 9] = [
    "key",
    "key_file",
    "bearer_sha256",
    "bearer_file",
    "bearer_env",
    "basic",
    "jwt",
    "external",
    "client_ca",
];

impl Settings {
    /// Makes the credential, and reads the files that it names. Blocks.
    pub fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, Mistake> {
        match self {
            Self::Key(text) => key::inline(&text, files),
            Self::KeyFile(path) => key::in_file(&path, files),
            Self::BearerSha256(digest) => Ok(Arc::new(SharedSecret::Bearer(digest))),
            Self::BearerFile(path) => SharedSecret::bearer(&files.secret(&path)?, &path.display()),
            Self::BearerEnv(name) => {
                let place = "the environment variable that is named here";
                SharedSecret::bearer(&files.variable(name.bytes())?, &place)
            }
            Self::Basic(settings) => SharedSecret::basic(settings, files),
            Self::Jwt(settings) => settings.load(files),
            Self::External(settings) => settings.load(files),
            Self::ClientCa(settings) => settings.load(files),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::{KINDS, Settings};
    use crate::auth::testing::*;

    /// The operator's spelling is what the README shows; a wrong one is told with the right ones.
    #[test]
    fn the_kinds_are_named_as_they_are_written() {
        let said = misspelt(json!({ "berer_file": "x" }));
        let listed: Vec<&str> = said.split('`').skip(3).step_by(2).collect();
        assert_eq!(listed, KINDS, "{said}");
        for wrong in [json!({}), json!({ "key": "x", "key_file": "x" }), json!({ "key": 5 })] {
            misspelt(wrong);
        }
    }
    /// All of the issue's spellings, as a file has them.
    #[test]
    fn every_kind_is_read_from_toml() {
        #[derive(Deserialize)]
        struct Route {
            allow: Vec<Settings>,
        }
        let text = r#"
            [[allow]]
            key = "2ptth_pub_x"
            [[allow]]
            key_file = "keys"
            [[allow]]
            bearer_sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
            [[allow]]
            bearer_file = "token"
            [[allow]]
            bearer_env = "TOKEN"
            [[allow]]
            basic = { user = "bob", password_file = "password" }
            [[allow]]
            jwt = { hs256_files = ["a", "b"], audience = "x", max_lifetime_days = 31, name_claim = "tid" }
            [[allow]]
            external = { url = "https://auth.example.com/", timeout = "5s" }
            [[allow]]
            external = { url = "http://127.0.0.1/", timeout = 2, allow_plain = true }
            [[allow]]
            client_ca = "ca.pem"
            [[allow]]
            [allow.basic]
            user = "bob"
            password_sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
        "#;
        let route: Route = toml::from_str(text).unwrap();
        use Settings::*;
        let [
            Key(_),
            KeyFile(_),
            BearerSha256(_),
            BearerFile(_),
            BearerEnv(_),
            Basic(_),
            Jwt(_),
            External(_),
            External(_),
            ClientCa(_),
            Basic(_),
        ] = &route.allow[..]
        else {
            panic!("{:?}", route.allow);
        };
    }
}
