//! The configuration file: what stands in for flags, and the tables that only it has.
//!
//! In:  the path of a TOML file.
//! Out: settings by the variable that says the same, and checked certificates, routes and names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;

use ptth_link::crypto;
use ptth_link::env::{self, Env};

use super::ConfigError;
use super::fields::{Fields, Text};
use super::mistake::Mistake;
use super::routes;
use super::several::Several;
use super::source::{Given, split};
use super::{CertificateSource, Names, Route};
use crate::auth::Files;

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct File {
    /// In the place of flags, by their variables.
    pub(super) settings: BTreeMap<&'static str, Given>,
    /// Where relative paths begin.
    pub(super) folder: PathBuf,
    pub(super) certificates: Vec<CertificateSource>,
    pub(super) routes: Vec<Route>,
    pub(super) names: Option<Names>,
    /// Over the file and every secret file that it names.
    pub(super) digest: [u8; 32],
    pub(super) warnings: Vec<String>,
}

impl File {
    /// Reads and checks the file, and the secret files that it names.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |why: std::io::Error| ConfigError::NoFile {
            path: path.to_owned(),
            why: why.to_string(),
        };
        let bytes = fs::read(path).map_err(unreadable)?;
        let digest = crypto::sha256(&bytes);
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        let text = match str::from_utf8(bytes) {
            Ok(text) => Text { path: path.to_owned(), text: text.to_owned() },
            Err(err) => {
                let before = bytes.get(..err.valid_up_to()).unwrap_or_default();
                let text = String::from_utf8_lossy(before).into_owned();
                let end = text.len();
                let text = Text { path: path.to_owned(), text };
                return Err(text.wrong(&(end..end), Mistake::NotText));
            }
        };
        Self::of(&text, digest)
    }

    /// What variables say that have no flag: dynamic names, as the file would have them.
    pub(super) fn of_variables(env: &Env<'_>) -> Result<Self, ConfigError> {
        let lists = [("domain", "NAMES_DOMAIN"), ("path_hosts", "NAMES_PATH_HOSTS")];
        let mut table = String::new();
        for (key, variable) in lists {
            let Some(text) = env::text(env, variable)? else { continue };
            let parts: Vec<_> = split(&text).iter().map(|part| format!("{part:?}")).collect();
            let list =
                if key == "domain" { parts.concat() } else { format!("[{}]", parts.join(",")) };
            table.push_str(&format!("{key} = {list}\n"));
        }
        if table.is_empty() {
            return Ok(Self::default());
        }
        let secrets = ["NAMES_JWT_SECRET_A", "NAMES_JWT_SECRET_B"];
        let secrets = secrets.into_iter().filter(|it| env(it).is_some_and(|it| !it.is_empty()));
        let secrets: Vec<_> = secrets.map(|name| format!("{name:?}")).collect();
        let claim = env::text(env, "NAMES_JWT_CLAIM")?.unwrap_or_else(|| "tid".to_owned());
        let audience = env::text(env, "NAMES_JWT_AUDIENCE")?;
        let audience = audience.map_or_else(String::new, |it| format!(", audience = {it:?}"));
        let text = format!(
            "[names]\n{table}jwt = {{ hs256_env = [{}], name_claim = {claim:?}{audience} }}\n",
            secrets.join(",")
        );
        Self::of(&Text { path: "NAMES_DOMAIN".into(), text }, [0; 32])
    }

    fn of(text: &Text, digest: [u8; 32]) -> Result<Self, ConfigError> {
        let folder = text.path.parent().unwrap_or(Path::new("")).to_owned();
        let mut file = Self { folder, ..Self::default() };
        let mut files = Files::new(&file.folder);
        file.fill(text, &mut files)?;
        file.digest = crypto::sha256(&[digest, files.digest()].concat());
        file.warnings = files.warnings().to_vec();
        file.warnings.extend(file.names.as_ref().and_then(Names::warning));
        Ok(file)
    }

    fn fill(&mut self, text: &Text, files: &mut Files) -> Result<(), ConfigError> {
        let (mut fields, mut several) = (text.parse()?, Several::default());
        for (key, variable, takes) in SETTINGS {
            let name = key.replace('-', "_");
            if let Some(Some((at, value))) = several.note(takes.text(&mut fields, &name)) {
                let place = text.place(at);
                self.settings.insert(variable, Given { key, place, text: value });
            }
        }
        let mut tables = |key| several.note(fields.tables(key)).flatten().map(|it| it.value);
        let (route, certificate) = (tables("route"), tables("certificate"));
        let names = fields.take("names");
        several.note(fields.finish());
        for table in certificate.unwrap_or_default() {
            let certificate = self.certificate(text, table);
            self.certificates.extend(several.note(certificate));
        }
        let tables = routes::Tables { text, routes: route.unwrap_or_default(), names };
        if let Some((routes, names)) = several.note(tables.check(files)) {
            (self.routes, self.names) = (routes, names);
        }
        several.end(())
    }

    fn certificate(
        &self,
        text: &Text,
        table: Spanned<DeValue<'_>>,
    ) -> Result<CertificateSource, ConfigError> {
        let mut fields = Fields::new(text, "[[certificate]]", table)?;
        let span = fields.span.clone();
        let mut path = |key: &'static str, other: &'static str| {
            let path = fields.scalar(key, "a path")?;
            let path = path.filter(|path| !path.value.is_empty());
            path.map(|path| self.folder.join(path.value))
                .ok_or_else(|| text.wrong(&span, Mistake::Without { key: other, needs: key }))
        };
        let (cert, key) = (path("cert", "[[certificate]]")?, path("key", "cert")?);
        fields.finish()?;
        Ok(CertificateSource::Files { cert, key })
    }
}

/// What a setting's key takes.
#[derive(Clone, Copy)]
enum Takes {
    Text,
    Number,
    Time,
    Path,
    List,
    Switch,
}

impl Takes {
    /// The value as the variable would hold it, and where it stands.
    fn text(
        self,
        fields: &mut Fields<'_>,
        key: &str,
    ) -> Result<Option<(usize, String)>, ConfigError> {
        let found = match self {
            Self::Switch => {
                fields.switch(key)?.map(|switch| (switch.span.start, switch.value.to_string()))
            }
            Self::List => fields.list(key, "a text, or a list of texts")?.map(|list| {
                let parts: Vec<String> = list.value.into_iter().map(|text| text.value).collect();
                (list.span.start, parts.join(","))
            }),
            Self::Text | Self::Number | Self::Time | Self::Path => {
                let wanted = match self {
                    Self::Number => "a number",
                    Self::Time => "a time like \"10s\", or a number of seconds",
                    Self::Path => "a path",
                    _ => "a text",
                };
                fields.scalar(key, wanted)?.map(|text| (text.span.start, text.value))
            }
        };
        Ok(found)
    }
}

/// The keys that are flags, by the flags' names, with the variables that say the same.
#[rustfmt::skip]
const SETTINGS: &[(&str, &str, Takes)] = &[
    ("listen", "LISTEN", Takes::List),
    ("cert", "CERT", Takes::Path),
    ("key", "KEY", Takes::Path),
    ("self-signed", "SELF_SIGNED", Takes::Switch),
    ("name", "NAMES", Takes::List),
    ("token-file", "TOKEN_FILE", Takes::Path),
    ("open", "OPEN", Takes::Switch),
    ("backend-alpn", "BACKEND_ALPN", Takes::List),
    ("trusted-proxies", "TRUSTED_PROXIES", Takes::List),
    ("proxy-protocol", "PROXY_PROTOCOL", Takes::Text),
    ("plain", "PLAIN", Takes::List),
    ("plain-anywhere", "PLAIN_ANYWHERE", Takes::Switch),
    ("redirect", "REDIRECT", Takes::List),
    ("state", "STATE_DIRECTORY", Takes::Path),
    ("take-over", "TAKE_OVER", Takes::Switch),
    ("head-timeout", "HEAD_TIMEOUT", Takes::Time),
    ("stall-timeout", "STALL_TIMEOUT", Takes::Time),
    ("max-connections", "MAX_CONNECTIONS", Takes::Number),
    ("max-connections-per-address", "MAX_CONNECTIONS_PER_ADDRESS", Takes::Number),
    ("max-tunnels", "MAX_TUNNELS", Takes::Number),
    ("grace", "GRACE", Takes::Time),
    ("log", "LOG", Takes::Text),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Args;

    /// The flag that `--help` has and the file lacks would be the one that somebody needs there.
    #[test]
    fn every_flag_is_a_key_of_the_file() {
        let help = Args::parse(["--help".to_owned()]).unwrap_err().output;
        let flags = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
        let flags = flags.filter_map(|line| line.split([' ', ',', ')']).next());
        let flags = flags.filter(|flag| !matches!(*flag, "config" | "check" | "version" | "help"));
        let keys: BTreeSet<&str> = SETTINGS.iter().map(|(key, _, _)| *key).collect();
        assert_eq!(keys, flags.collect());
    }
}
