//! The kinds of credentials: the one list of them.
//!
//! A further kind is a file that has a settings type with a `load`, and a line here. The name of
//! the variant, in snake_case, is the key in the configuration: `{ bearer_file = "blog.secret" }`.

use std::sync::Arc;

use serde::Deserialize;

use super::credential::Credential;
use super::secret::{Files, LoadError};
use super::{basic, bearer, external, jwt, key};

/// Makes [`Settings`] of lines `Variant(its settings)`.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident($settings:ty),)+) => {
        /// A credential as the configuration writes it: a table with the kind as its one key.
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Settings {
            $($(#[$doc])* $kind($settings),)+
        }

        impl Settings {
            /// Makes the credential, and reads the files that it names. Blocks.
            ///
            /// # Errors
            /// [`LoadError`], one sentence for the operator.
            pub fn load(self, files: &mut Files) -> Result<Arc<dyn Credential>, LoadError> {
                match self {
                    $(Self::$kind(settings) => settings.load(files),)+
                }
            }
        }
    };
}

kinds! {
    /// A public key of door A.
    Key(key::Inline),
    /// A file of such keys, one a line.
    KeyFile(key::InFile),
    /// The SHA-256 of a bearer token, in hexadecimal.
    BearerSha256(bearer::Hashed),
    /// A file with a bearer token.
    BearerFile(bearer::InFile),
    /// User and password.
    Basic(basic::Settings),
    /// JSON Web Tokens of an issuer whose keys are known.
    Jwt(jwt::Settings),
    /// Somebody else decides, who is asked over HTTP.
    External(external::Settings),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::auth::testing::*;

    /// The operator's spelling is what the README shows; a wrong one is told with the right ones.
    #[test]
    fn the_kinds_are_named_as_they_are_written() {
        let said = misspelt(json!({ "berer_file": "x" }));
        for kind in ["key", "key_file", "bearer_sha256", "bearer_file", "basic", "jwt", "external"]
        {
            assert!(said.contains(&format!("`{kind}`")), "{said}");
        }
        for wrong in [json!({}), json!({ "key": "x", "key_file": "x" }), json!({ "key": 5 })] {
            misspelt(wrong);
        }
    }
}
