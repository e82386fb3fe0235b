//! The kinds of credentials: the one list of them.
//!
//! A further kind is a file that has a settings type with a `load`, and a line here. The name of
//! the variant, in snake_case, is the key in the configuration: `{ bearer_file = "blog.secret" }`.

use std::sync::Arc;

use serde::Deserialize;

use super::credential::Credential;
use super::secret::{Files, LoadError};
use super::{basic, bearer, jwt, key};

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
}
