//! What can be wrong with what the operator said.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ptth_link::alpn::LabelError;
use ptth_link::env::EnvError;
use ptth_link::keys::KeysError;

use super::mistake::Mistake;
use super::source::{Origin, Place};

/// Why the gateway can't start. Each is one sentence for the operator, causes included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConfigError {
    /// Neither a certificate nor `--self-signed`.
    NoCertificate,
    /// Both.
    CertificateTwice,
    /// `--name` is for `--self-signed` only.
    NameWithFiles,
    /// A certificate without its key.
    KeyMissing {
        /// The certificate's file.
        cert: PathBuf,
    },
    /// A key without its certificate.
    CertMissing {
        /// The key's file.
        key: PathBuf,
    },
    /// A `--name` that no certificate can hold.
    Name {
        /// Who said so.
        flag: Origin,
        /// What it says.
        text: String,
    },
    /// An address that can't be listened on.
    Listen {
        /// Who said so.
        flag: Origin,
        /// What it says.
        text: String,
    },
    /// Another address that can't be listened on.
    Address {
        /// Who said so.
        flag: Origin,
        /// What it says.
        text: String,
    },
    /// Plain HTTP where everybody can reach it.
    PlainPublic(SocketAddr),
    /// Not an address or a network of proxies.
    Trusted(String),
    /// Not a way to use the PROXY protocol.
    ProxyProtocol {
        /// Who said so.
        flag: Origin,
        /// What it says.
        text: String,
    },
    /// The PROXY protocol is required, of nobody.
    NobodyTrusted,
    /// Not a number of seconds.
    Seconds {
        /// Who said so.
        flag: Origin,
        /// What it says.
        text: String,
    },
    /// Not a number of things.
    Count {
        /// Who said so.
        flag: Origin,
        /// What it says.
        text: String,
    },
    /// Not a level of logging.
    Log {
        /// Who said so.
        flag: Origin,
        /// What it says.
        text: String,
    },
    /// The list of backend labels.
    Alpn {
        /// Who said so.
        flag: Origin,
        /// What is wrong with it.
        why: LabelError,
    },
    /// Admit anybody, and only some.
    OpenWithToken,
    /// TOKEN and TOKEN_FILE.
    TokenTwice,
    /// A token where its file's path should be.
    TokenAsFile,
    /// The text of TOKEN.
    Token(KeysError),
    /// The text of a token file.
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: KeysError,
    },
    /// What was made can't be kept.
    State {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// A variable that holds neither PEM nor its base64.
    PemText(&'static str),
    /// A token file that isn't text.
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A token file that can't be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// A variable.
    Env(EnvError),
    /// A configuration file that can't be read.
    NoFile {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// Something in the configuration file.
    At {
        /// Where.
        place: Place,
        /// What is wrong there.
        why: Mistake,
    },
    /// More than one mistake, each with a line of its own.
    Several(Vec<ConfigError>),
    /// Settings that go wrong together, one of them in the configuration file.
    Here {
        /// Where.
        place: Place,
        /// What is wrong.
        why: Box<ConfigError>,
    },
}

impl ConfigError {
    /// Where in the configuration file it is.
    pub(super) fn place(&self) -> Option<&Place> {
        match self {
            Self::At { place, .. } | Self::Here { place, .. } => Some(place),
            _ => None,
        }
    }

    pub(super) fn unreadable(path: &Path, err: &io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), why: err.to_string() }
    }
}

impl From<EnvError> for ConfigError {
    fn from(err: EnvError) -> Self {
        Self::Env(err)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str(
                "no certificate: give --cert FILE and --key FILE (or CERT and KEY), or --self-signed to try it out",
            ),
            Self::CertificateTwice => {
                f.write_str("--cert and --key contradict --self-signed; give one or the other")
            }
            Self::NameWithFiles => f.write_str(
                "--name is for --self-signed; the names of a certificate from a file are in the file",
            ),
            Self::KeyMissing { cert } => write!(
                f,
                "the certificate {} needs its private key: give --key FILE (or KEY), the same file if it holds both",
                cert.display()
            ),
            Self::CertMissing { key } => write!(
                f,
                "the key {} needs its certificate: give --cert FILE (or CERT), the same file if it holds both",
                key.display()
            ),
            Self::Name { flag, text } => write!(
                f,
                "{flag} {text:?} is neither a DNS name nor an IP address; write it like `example.com` (`xn--…` for other alphabets)"
            ),
            Self::Listen { flag, text } => write!(
                f,
                "{flag} {text:?} isn't an address; write a port, or an IP address and a port, like `443`, `0.0.0.0:443` or `[::1]:8443`"
            ),
            Self::Address { flag, text } => write!(
                f,
                "{flag} {text:?} isn't an address; write an IP address and a port, like `127.0.0.1:8080` or `[::1]:8080`"
            ),
            Self::PlainPublic(address) => write!(
                f,
                "--plain {address} would take requests without TLS from everybody; give a loopback or private address, or --plain-anywhere if something else keeps strangers away from it"
            ),
            Self::Trusted(text) => write!(
                f,
                "--trusted-proxies (TRUSTED_PROXIES): {text:?} is neither an address nor a network; write them like `10.0.0.0/8,192.0.2.7,fd00::/8`"
            ),
            Self::ProxyProtocol { flag, text } => {
                write!(f, "{flag} {text:?} isn't a choice; write off, optional or required")
            }
            Self::NobodyTrusted => f.write_str(
                "--proxy-protocol required is about the proxies of --trusted-proxies (TRUSTED_PROXIES); give their addresses there",
            ),
            Self::Seconds { flag, text } => {
                write!(f, "{flag} {text:?} isn't a time; write seconds, or like `10s`, `5m` or `1h`; more than 0 and up to a year")
            }
            Self::Count { flag, text } => {
                write!(f, "{flag} {text:?} isn't a number of connections; write 1 or more")
            }
            Self::Log { flag, text } => {
                write!(f, "{flag} {text:?} isn't a level; write off, error, warn, info, debug or trace")
            }
            Self::Alpn { flag, why } => write!(f, "{flag}: {why}"),
            Self::OpenWithToken => f.write_str(
                "--open admits any backend, so it contradicts --token-file, TOKEN_FILE and TOKEN; remove one of them",
            ),
            Self::TokenTwice => {
                f.write_str("the variables TOKEN and TOKEN_FILE are both set; unset one of them")
            }
            Self::TokenAsFile => f.write_str(
                "--token-file (TOKEN_FILE) takes a path, not the token itself; give the token by the variable TOKEN, where other users don't see it",
            ),
            Self::Token(KeysError::Line { why, .. }) => write!(f, "the variable TOKEN: {why}"),
            Self::Token(why) => write!(f, "the variable TOKEN: {why}"),
            Self::TokenFile { path, why } => write!(f, "the token file {}: {why}", path.display()),
            Self::State { path, why } => {
                write!(f, "{} can't be written ({why}); check the folder of --state", path.display())
            }
            Self::PemText(variable) => {
                write!(f, "the variable {variable} holds neither PEM nor the base64 of it")
            }
            Self::NotText { path } => write!(
                f,
                "the token file {} isn't UTF-8 text; write one key a line",
                path.display()
            ),
            Self::Unreadable { path, why } => write!(
                f,
                "the token file {} can't be read ({why}); check its path and that this user may read it",
                path.display()
            ),
            Self::Env(why) => write!(f, "{why}"),
            Self::NoFile { path, why } => write!(
                f,
                "the configuration file {} can't be read ({why}); check its path and that this user may read it",
                path.display()
            ),
            Self::At { place, why } => write!(f, "{place}: {why}"),
            Self::Several(all) => {
                let lines: Vec<_> = all.iter().map(Self::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Here { place, why } => write!(f, "{place}: {why}"),
        }
    }
}

impl std::error::Error for ConfigError {}
