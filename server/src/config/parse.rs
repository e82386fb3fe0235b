//! The values of single flags and variables.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::ConfigError;

/// `443`, `:443`, `*:443`, `0.0.0.0:443`, `[::]:443`, or an address alone.
pub(super) fn listen(text: &str) -> Result<SocketAddr, ConfigError> {
    address(text, PORT).ok_or_else(|| ConfigError::Listen(text.trim().to_owned()))
}

/// The same, with another port where none is given.
pub(super) fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(SocketAddr::from((ip, port)));
    }
    let port = text.strip_prefix("*:").or(text.strip_prefix(':')).unwrap_or(text);
    // `parse` alone would take "+443".
    let port = port.bytes().all(|b| b.is_ascii_digit()).then_some(port)?;
    Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.parse().ok()?)))
}

/// A number of seconds, fractions allowed.
pub(super) fn seconds(flag: &'static str, text: String) -> Result<Duration, ConfigError> {
    let number = text.trim().parse().ok().filter(|n| *n <= LONGEST);
    let duration = number.and_then(|n| Duration::try_from_secs_f64(n).ok());
    duration.ok_or(ConfigError::Seconds { flag, text })
}

/// A number of seconds, not zero.
pub(super) fn timeout(flag: &'static str, text: String) -> Result<Duration, ConfigError> {
    match seconds(flag, text.clone())? {
        Duration::ZERO => Err(ConfigError::Seconds { flag, text }),
        duration => Ok(duration),
    }
}

/// A whole number from 1.
pub(super) fn count(flag: &'static str, text: String) -> Result<usize, ConfigError> {
    let number = text.trim().parse().ok().filter(|n| *n > 0);
    number.ok_or(ConfigError::Count { flag, text })
}

/// A name or an address that a certificate can hold, `*.` in front allowed.
pub(super) fn name(text: &str) -> Result<(), ConfigError> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    match ServerName::try_from(name) {
        Ok(_) if !name.ends_with('.') => Ok(()),
        _ => Err(ConfigError::Name(text.to_owned())),
    }
}

/// The port of HTTPS.
pub(super) const PORT: u16 = 443;

/// A year in seconds: longer is a mistake in the unit, and the clock's arithmetic has ends.
const LONGEST: f64 = 31_536_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_addresses_are_written_in_many_ways() {
        let table = [
            ("443", "[::]:443"),
            (":8443", "[::]:8443"),
            ("*:8443", "[::]:8443"),
            ("0", "[::]:0"),
            ("0.0.0.0:443", "0.0.0.0:443"),
            ("[::]:0", "[::]:0"),
            ("[::1]", "[::1]:443"),
            ("::1", "[::1]:443"),
            ("127.0.0.1", "127.0.0.1:443"),
        ];
        for (text, expected) in table {
            assert_eq!(listen(text).unwrap().to_string(), expected, "{text}");
        }
        for bad in
            ["", ":", "+443", "65536", "-1", "localhost:443", "1.2.3.4:", "[::1]:x", "1.2.3:4"]
        {
            assert_eq!(listen(bad), Err(ConfigError::Listen(bad.into())));
        }
    }
}
