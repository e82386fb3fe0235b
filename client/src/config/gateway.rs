//! The gateway's address, as users write it.

use std::fmt;

use ptth_link::settings::Mistake;

use super::origin;

/// The address of a gateway.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Gateway {
    /// A DNS name in lower case, or an IP address without brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
}

impl Gateway {
    /// Reads `example.com`, `example.com:8443`, `[::1]:8443`, `::1`, or an `https://` URL of a
    /// gateway, as a browser shows it.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        match Self::parse_either(text)? {
            (gateway, false) => Ok(gateway),
            (_, true) => Err(wrong(text, "it speaks TLS, so only https:// can stand there")),
        }
    }

    /// The same, or the `http://` URL of one without TLS, which is told.
    pub fn parse_either(text: &str) -> Result<(Self, bool), Mistake> {
        let text = text.trim();
        let error = |why| wrong(text, why);
        let (rest, plain) = match origin::scheme(text) {
            None => (text, false),
            Some(("https", rest)) => (rest, false),
            Some(("http", rest)) => (rest, true),
            Some(_) => return Err(error("only https:// or http:// can stand there")),
        };
        let authority = origin::bare_authority(rest).map_err(error)?;
        let (host, port) = origin::host_and_port(authority).map_err(error)?;
        Ok((Self { host, port: port.unwrap_or(if plain { 80 } else { 443 }) }, plain))
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&origin::authority(&self.host, Some(self.port)))
    }
}

fn wrong(text: &str, why: &str) -> Mistake {
    let example = "write it like `example.com` or `192.0.2.1:8443`";
    origin::wrong("the gateway", text, why, example)
}
