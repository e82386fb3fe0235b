//! The values of single flags and variables.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::ServerName;

pub(super) use ptth_link::units::duration;

use super::ConfigError;
use super::source::Origin;

/// `443`, `:443`, `*:443`, `0.0.0.0:443`, `[::]:443`, or an address alone.
pub(super) fn listen(flag: &Origin, text: &str) -> Result<SocketAddr, ConfigError> {
    let error = || ConfigError::Listen { flag: flag.clone(), text: text.trim().to_owned() };
    address(text, PORT).ok_or_else(error)
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

/// A time; zero is one, too.
pub(super) fn seconds(flag: Origin, text: String) -> Result<Duration, ConfigError> {
    duration(&text).ok_or(ConfigError::Seconds { flag, text })
}

/// A time, not zero.
pub(super) fn timeout(flag: Origin, text: String) -> Result<Duration, ConfigError> {
    let time = duration(&text).filter(|time| !time.is_zero());
    time.ok_or(ConfigError::Seconds { flag, text })
}

/// A number of bytes, or a number with its unit.
pub(super) fn size(text: &str) -> Option<usize> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let unit: usize = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" | "k" | "K" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" | "m" | "M" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" | "g" | "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// A whole number from 1.
pub(super) fn count(flag: Origin, text: String) -> Result<usize, ConfigError> {
    number(&text).ok_or(ConfigError::Count { flag, text })
}

/// A whole number from 1.
pub(super) fn number(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|n| *n > 0)
}

/// A name or an address that a certificate can hold, `*.` in front allowed.
pub(super) fn name(flag: &Origin, text: &str) -> Result<(), ConfigError> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    match ServerName::try_from(name) {
        Ok(_) if !name.ends_with('.') => Ok(()),
        _ => Err(ConfigError::Name { flag: flag.clone(), text: text.to_owned() }),
    }
}

/// The port of HTTPS.
pub(super) const PORT: u16 = 443;

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
        let flag = Origin::Flag("--listen");
        for (text, expected) in table {
            assert_eq!(listen(&flag, text).unwrap().to_string(), expected, "{text}");
        }
        for bad in
            ["", ":", "+443", "65536", "-1", "localhost:443", "1.2.3.4:", "[::1]:x", "1.2.3:4"]
        {
            let error = ConfigError::Listen { flag: flag.clone(), text: bad.into() };
            assert_eq!(listen(&flag, bad), Err(error));
        }
    }

    #[test]
    fn times_and_sizes_have_units() {
        for (text, millis) in [
            ("0", Some(0)),
            ("1.5", Some(1_500)),
            ("1e1", Some(10_000)),
            (" 10s ", Some(10_000)),
            ("10 s", Some(10_000)),
            ("250ms", Some(250)),
            ("2m", Some(120_000)),
            ("1.5h", Some(5_400_000)),
            ("365d", Some(31_536_000_000)),
            ("366d", None),
            ("-1", None),
            ("-1s", None),
            ("", None),
            ("s", None),
            ("10x", None),
            ("10S", None),
            ("NaN", None),
            ("inf", None),
            ("1e99", None),
            ("10€", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text:?}");
        }
        for (text, bytes) in [
            ("0", Some(0)),
            ("1000", Some(1_000)),
            ("1MiB", Some(1 << 20)),
            ("64 KiB", Some(65_536)),
            ("2kB", Some(2_000)),
            ("1M", Some(1 << 20)),
            ("1.5MiB", None),
            ("-1", None),
            ("+1", None),
            ("MiB", None),
            ("1TiB", None),
            ("99999999999999999999", None),
            ("18446744073709551615GiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }
}
