//! What can be wrong at one place of the configuration file.

use std::fmt;

use crate::auth::LoadError;
use crate::router::PatternError;

/// What is wrong, as a sentence without its place. None quotes what may be a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Mistake {
    /// No TOML.
    Syntax(String),
    /// Not UTF-8.
    NotText,
    /// A key that nothing reads.
    Unknown {
        /// The key.
        key: String,
        /// Of which table.
        table: &'static str,
    },
    /// A key in both spellings.
    KeyTwice(String),
    /// A value of another type than its key takes.
    Type {
        /// The key.
        key: String,
        /// What it takes.
        wanted: &'static str,
    },
    /// A value that its key doesn't take.
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        text: String,
        /// What it takes.
        wanted: &'static str,
    },
    /// A value that needs another.
    Without {
        /// The key.
        key: &'static str,
        /// The missing one.
        needs: &'static str,
    },
    /// An empty list or text where that would leave nothing.
    Empty {
        /// The key.
        key: &'static str,
        /// What that would mean.
        means: &'static str,
    },
    /// A host.
    Host {
        /// What it says.
        text: String,
        /// What is wrong with it.
        why: PatternError,
    },
    /// A pattern where only a name can be.
    NotAName {
        /// The key.
        key: &'static str,
        /// What it says.
        text: String,
    },
    /// A path.
    Path {
        /// What it says.
        text: String,
        /// What is wrong with it, and what to write.
        why: &'static str,
    },
    /// Two routes of one name.
    NameTwice {
        /// The name.
        name: String,
        /// The line of the first.
        line: usize,
    },
    /// Two routes for the same requests.
    RouteTwice {
        /// Their host.
        host: String,
        /// Their path.
        path: String,
        /// The first one.
        first: String,
        /// Its line.
        line: usize,
    },
    /// One of several routes without hosts.
    NoHosts,
    /// A route for hosts that are dynamic names.
    HostInNames {
        /// The host.
        host: String,
        /// Where the dynamic names are.
        domain: String,
    },
    /// A dynamic name that is no label.
    Label(String),
    /// A dynamic name with another domain.
    Outside {
        /// The name.
        name: String,
        /// Where the dynamic names are.
        domain: String,
    },
    /// A dynamic name that is a route's path, where both are paths.
    NameInRoute {
        /// The name.
        name: String,
        /// The route.
        route: String,
        /// Its line.
        line: usize,
    },
    /// A credential that isn't a table with one kind.
    Credential,
    /// A credential's own settings, in the words of who reads them.
    Settings {
        /// The kind.
        kind: String,
        /// What is wrong with it.
        why: String,
    },
    /// What a credential needs can't be had.
    Load(LoadError),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => write!(f, "this isn't TOML: {why}"),
            Self::NotText => f.write_str("this isn't UTF-8 text"),
            Self::Unknown { key, table } => {
                write!(f, "`{}` isn't a key of {table}; check its spelling", key.escape_debug())?;
                // Of a program that came before this one.
                if key == "proxy" { f.write_str(", or see the README's recipes for `[[proxy]]`") } else { Ok(()) }
            }
            Self::KeyTwice(key) => write!(f, "`{}` is given twice", key.escape_debug()),
            Self::Type { key, wanted } => write!(f, "`{key}` takes {wanted}"),
            Self::Value { key, text, wanted } => write!(f, "{key} {text:?} must be {wanted}"),
            Self::Without { key, needs } => write!(f, "`{key}` needs `{needs}`"),
            Self::Empty { key, means } => write!(f, "`{key}` is empty, {means}"),
            Self::Host { text, why } => write!(f, "the host {text:?} {why}"),
            Self::NotAName { key, text } => {
                write!(f, "{key} {text:?} must be a name like `example.com`, without `*`")
            }
            Self::Path { text, why } => write!(f, "path {text:?} {why}"),
            Self::NameTwice { name, line } => {
                write!(f, "the route of line {line} is called {name:?}, too; each needs its own `name`")
            }
            Self::RouteTwice { host, path, first, line } => write!(
                f,
                "the route {first:?} of line {line} has the host {host} and the path {path}, too; one of them would never be used"
            ),
            Self::NoHosts => f.write_str("this route needs `hosts`, since it isn't the only one"),
            Self::HostInNames { host, domain } => write!(
                f,
                "the host {host} is among the dynamic names of {domain}; take it out here or move `domain`"
            ),
            Self::Label(name) => write!(
                f,
                "the name {name:?} must be one DNS label in lower case: 1 to 63 letters, digits and inner hyphens; with `path_hosts`, letters of either case, digits and - . _ ~ %"
            ),
            Self::Outside { name, domain } => write!(
                f,
                "the name {name:?} is outside of {domain}; write only what stands in front of that"
            ),
            Self::NameInRoute { name, route, line } => write!(
                f,
                "the name {name:?} would be reached at a path that the route {route:?} of line {line} has"
            ),
            Self::Credential => f.write_str(
                "a credential is a table with one kind, like `{ key = \"2ptth_pub_…\" }` or `{ bearer_file = \"…\" }`",
            ),
            Self::Settings { kind, why } => write!(f, "`{}`: {why}", kind.escape_debug()),
            Self::Load(why) => write!(f, "{why}"),
        }
    }
}
