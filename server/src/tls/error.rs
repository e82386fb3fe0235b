//! What can be wrong with a certificate.

use std::fmt;
use std::path::PathBuf;

/// Why a certificate, or what was read again, can't be used. Each is one sentence for the operator,
/// causes included, and equal for equal causes.
#[derive(Clone, Debug, PartialEq)]
pub enum TlsError {
    /// This user may not read the file.
    Denied(PathBuf),
    /// The file can't be read for another reason.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The file of a certificate that is kept can't be written.
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// No certificate in the file.
    NoCertificate(PathBuf),
    /// No private key in the file.
    NoKey(PathBuf),
    /// A certificate where the key should be, or the other way round.
    Swapped(PathBuf),
    /// The key needs a password, and there is nobody to type it.
    Encrypted(PathBuf),
    /// Not PEM, or PEM that is damaged.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        why: String,
    },
    /// A key of a type that TLS can't use here.
    KeyType(PathBuf),
    /// The key isn't that of the certificate.
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The key is that of a later certificate in the file.
    Order {
        /// The certificate's file.
        cert: PathBuf,
        /// Which certificate the key belongs to, from 1.
        position: usize,
    },
    /// Its time is over.
    Expired {
        /// The certificate's file.
        cert: PathBuf,
        /// The last second of its time.
        since: String,
    },
    /// Its time hasn't come.
    NotYetValid {
        /// The certificate's file.
        cert: PathBuf,
        /// The first second of its time.
        from: String,
    },
    /// A self-signed certificate can't be made.
    Made(String),
    /// The token file, read again.
    Tokens(String),
    /// rustls refuses a configuration.
    Rustls(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(path) => write!(
                f,
                "this user may not read {}, as happens in a container that isn't root's: run it with `--user` set to the file's owner, let an ACL allow it (`setfacl -R -m u:UID:rX` on its directories), or give a copy that it may read",
                path.display()
            ),
            Self::Unreadable { path, why } => {
                write!(f, "{} can't be read ({why}); check the path", path.display())
            }
            Self::Unwritable { path, why } => {
                write!(
                    f,
                    "{} can't be written ({why}); check the folder of --state",
                    path.display()
                )
            }
            Self::NoCertificate(path) => write!(
                f,
                "{} holds no certificate; give a PEM file with `-----BEGIN CERTIFICATE-----` in it",
                path.display()
            ),
            Self::NoKey(path) => write!(
                f,
                "{} holds no private key; give a PEM file with `-----BEGIN PRIVATE KEY-----` in it",
                path.display()
            ),
            Self::Swapped(path) => write!(
                f,
                "{} holds the other half; --cert takes the certificate and --key the private key, so swap them",
                path.display()
            ),
            Self::Encrypted(path) => write!(
                f,
                "the key in {} is encrypted; decrypt it with `openssl pkey -in FILE -out NEW` and give the new file",
                path.display()
            ),
            Self::Malformed { path, why } => {
                write!(f, "{} is damaged ({why}); write the PEM file again", path.display())
            }
            Self::KeyType(path) => write!(
                f,
                "the key in {} is of a type that can't be used; take ECDSA (P-256, P-384), RSA of 2048 bits or more, or Ed25519",
                path.display()
            ),
            Self::Mismatch { cert, key } => write!(
                f,
                "the key in {} isn't the key of the certificate in {}; give the pair that was issued together",
                key.display(),
                cert.display()
            ),
            Self::Order { cert, position } => write!(
                f,
                "the key belongs to certificate {position} in {}; put the server's own certificate first, then its issuers",
                cert.display()
            ),
            Self::Expired { cert, since } => write!(
                f,
                "the certificate in {} expired on {since}; renew it (`certbot renew`), or set this machine's clock",
                cert.display()
            ),
            Self::NotYetValid { cert, from } => write!(
                f,
                "the certificate in {} isn't valid before {from}; set this machine's clock",
                cert.display()
            ),
            Self::Made(why) => write!(f, "no certificate could be made ({why}); check each --name"),
            Self::Tokens(why) => write!(f, "{why}"),
            Self::Rustls(why) => write!(f, "TLS can't be set up: {why}"),
        }
    }
}

impl std::error::Error for TlsError {}
