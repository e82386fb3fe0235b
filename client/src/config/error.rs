//! What can be wrong with what the user said.

use std::fmt;
use std::path::PathBuf;

use ptth_link::alpn::LabelError;
use ptth_link::env::EnvError;
use ptth_link::token::TokenError;

use super::{FileError, MAX_TUNNELS, ValueError};

/// Why the client can't start. Each is one sentence for the user, causes included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConfigError {
    /// Nothing to dial.
    NoGateway,
    /// A third address.
    Surplus(String),
    /// The gateway's address.
    Gateway {
        /// What it says.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The origin's address.
    Origin {
        /// What it says.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The Host for the origin.
    HostHeader {
        /// What it says.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// What the origin is told of visitors.
    Forwarded {
        /// The flag or variable.
        flag: &'static str,
        /// What it says.
        text: String,
    },
    /// The public host, or the origin's name.
    Host {
        /// The flag or variable.
        flag: &'static str,
        /// What it says.
        text: String,
    },
    /// The dynamic name.
    Name {
        /// The flag or variable.
        flag: &'static str,
        /// What it says.
        text: String,
    },
    /// The path of a route.
    Path {
        /// The flag or variable.
        flag: &'static str,
        /// What it says.
        text: String,
    },
    /// More than one way to know the gateway.
    TrustTwice,
    /// Not a pin.
    Pin,
    /// A number of tunnels.
    Tunnels {
        /// The flag or variable.
        flag: &'static str,
        /// What it says.
        text: String,
    },
    /// Not a level of logging.
    Log {
        /// The flag or variable.
        flag: &'static str,
        /// What it says.
        text: String,
    },
    /// The label that means "backend".
    Alpn(LabelError),
    /// A token where its file's path should be.
    TokenAsFile,
    /// TOKEN and TOKEN_FILE.
    TokenTwice,
    /// The text of TOKEN.
    Token(TokenError),
    /// The text of a token file.
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: TokenError,
    },
    /// More than one token in a file.
    ManyTokens(PathBuf),
    /// A token file that can't be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// Not a door.
    Via {
        /// The flag or variable.
        flag: &'static str,
        /// What it says.
        text: String,
    },
    /// By ALPN to a gateway without TLS.
    PlainAlpn,
    /// More than one source of the Authorization value.
    AuthorizationTwice,
    /// The text of AUTHORIZATION.
    Authorization(ValueError),
    /// The file with the Authorization value.
    AuthorizationFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: ValueError,
    },
    /// A command of blanks.
    AuthorizationCommand,
    /// A proxy's URL.
    Proxy {
        /// Whose value it is.
        variable: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// All addresses, and a proxy that resolves names by itself.
    AllAddressesByProxy(String),
    /// The file of `--config`.
    File(FileError),
    /// A flag or a variable that is about one service, though a file has several.
    ForOneService(&'static str),
    /// A variable.
    Env(EnvError),
}

impl From<FileError> for ConfigError {
    fn from(err: FileError) -> Self {
        Self::File(err)
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
            Self::NoGateway => f.write_str(
                "no gateway: say which one to dial, like `2ptth-client example.com 8080` (or set GATEWAY)",
            ),
            Self::Surplus(text) => {
                write!(f, "{text:?} is one address too many; write a gateway and one origin")
            }
            Self::Gateway { text, why } => {
                write!(f, "the gateway {text:?}: {why}; write it like `example.com` or `192.0.2.1:8443`")
            }
            Self::Origin { text, why } => {
                write!(f, "the origin {text:?}: {why}; write it like `8080` or `http://localhost:8080`")
            }
            Self::HostHeader { text, why } => {
                write!(f, "--host-header {text:?}: {why}; write `keep`, `origin` or a host")
            }
            Self::Forwarded { flag, text } => {
                write!(f, "{flag} {text:?} is neither `all` nor `none`")
            }
            Self::Host { flag, text } => write!(
                f,
                "{flag} {text:?} is neither a host name nor an IP address; write it without scheme and port, like `www.example.com`"
            ),
            Self::Name { flag, text } => write!(
                f,
                "{flag} {text:?} can't be a name; write one label of a host, or one segment of a path, of 1 to 63 letters, digits and - . _ ~ %, like `blog`"
            ),
            Self::Path { flag, text } => write!(
                f,
                "{flag} {text:?} can't be a path; write the prefix that the gateway's route has, like `/forward/acme`"
            ),
            Self::TrustTwice => f.write_str("--ca, --pin and --insecure exclude each other; keep one"),
            Self::Pin => f.write_str(
                "--pin (PIN) must be `sha256:` and 64 hexadecimal digits; copy it from the gateway's output",
            ),
            Self::Tunnels { flag, text } => {
                write!(f, "{flag} {text:?} isn't a number of tunnels; write 1 to {MAX_TUNNELS}")
            }
            Self::Log { flag, text } => {
                write!(f, "{flag} {text:?} isn't a level; write off, error, warn, info, debug or trace")
            }
            Self::Alpn(why) => write!(f, "--alpn (ALPN): {why}"),
            Self::TokenAsFile => f.write_str(
                "--token-file (TOKEN_FILE) takes a path, not the token itself; give the token by the variable TOKEN, where other users don't see it",
            ),
            Self::TokenTwice => {
                f.write_str("the variables TOKEN and TOKEN_FILE are both set; unset one of them")
            }
            Self::Token(why) => write!(f, "the variable TOKEN: {why}"),
            Self::TokenFile { path, why } => write!(f, "the token file {}: {why}", path.display()),
            Self::ManyTokens(path) => write!(
                f,
                "the token file {} holds more than one line; leave the token of this client only",
                path.display()
            ),
            Self::Unreadable { path, why } => write!(
                f,
                "the token file {} can't be read ({why}); check its path and that this user may read it",
                path.display()
            ),
            Self::Via { flag, text } => {
                write!(f, "{flag} {text:?} is no door; write alpn, upgrade, connect or auto")
            }
            Self::PlainAlpn => f.write_str(
                "a gateway without TLS has no ALPN label; write --via upgrade or connect, or leave it out",
            ),
            Self::AuthorizationTwice => f.write_str(
                "--authorization-file, --authorization-command and AUTHORIZATION exclude each other; keep one",
            ),
            Self::Authorization(why) => write!(f, "the variable AUTHORIZATION {why}"),
            Self::AuthorizationFile { path, why } => {
                write!(f, "the authorization file {} {why}", path.display())
            }
            Self::AuthorizationCommand => f.write_str(
                "--authorization-command (AUTHORIZATION_COMMAND) is empty; write a command of the shell",
            ),
            Self::Proxy { variable, why } => write!(
                f,
                "the variable {variable}: {why}; write it like `http://proxy:3128` or `socks5://proxy:1080`"
            ),
            Self::AllAddressesByProxy(proxy) => write!(
                f,
                "--all-addresses needs the addresses of the gateway, but the proxy {proxy} resolves its name; put the gateway into NO_PROXY, or leave --all-addresses out"
            ),
            Self::File(why) => write!(f, "{why}"),
            Self::ForOneService(flag) => write!(
                f,
                "{flag} can't hold for each [[service]] of the file of --config; say it there"
            ),
            Self::Env(why) => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for ConfigError {}
