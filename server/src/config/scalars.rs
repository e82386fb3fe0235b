//! Values of the tables that only the file has, as they are written.

use http::{HeaderValue, StatusCode, Uri};
use ptth_link::settings::{Parser, word};

use super::route::{NoBackend, Respond, WhenTaken};
use crate::router::HostPattern;

pub(super) const HOST: Parser<HostPattern> = Parser("a host like \"example.com\"", |text| {
    text.parse().map_err(|why: &str| Some(why.to_owned()))
});

pub(super) const NAME: Parser<String> =
    Parser("a name like `example.com`, without `*`", |text| match text.parse() {
        Ok(HostPattern::Name(name)) => Ok(name.into()),
        Ok(_) => Err(None),
        Err(why) => Err(Some(why.to_owned())),
    });

pub(super) const WHEN_TAKEN: Parser<WhenTaken> =
    Parser("\"balance\", \"replace\" or \"reject\"", |text| {
        let words = [
            ("balance", WhenTaken::Balance),
            ("replace", WhenTaken::Replace),
            ("reject", WhenTaken::Reject),
        ];
        word(text, &words)
    });

pub(super) const NO_BACKEND: Parser<NoBackend> = Parser(
    "404, 502, 503, a URL like \"https://example.com/\", { page = \"away.html\" } or { origin = \"http://127.0.0.1:8081\" }",
    |text| {
        let known =
            [StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];
        let status = status(text, &known).map(NoBackend::Status);
        status.or_else(|| redirect(text).map(NoBackend::Redirect)).ok_or(None)
    },
);

fn status(text: &str, known: &[StatusCode]) -> Option<StatusCode> {
    known.iter().find(|status| status.as_str() == text).copied()
}

fn redirect(url: &str) -> Option<HeaderValue> {
    let uri: Uri = url.parse().ok()?;
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    let fine = http && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    fine.then(|| HeaderValue::from_str(url).ok()).flatten()
}

pub(super) const RESPOND: Parser<StatusCode> = Parser("200, 202 or 204", |text| {
    status(text, &[StatusCode::OK, StatusCode::ACCEPTED, StatusCode::NO_CONTENT]).ok_or(None)
});

/// A number of bytes, or a number with its unit.
pub(super) const SIZE: Parser<usize> =
    Parser("a size like \"1MiB\", up to 4MiB, since each request is kept in memory", |text| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(end).ok_or(None)?;
        let unit: usize = match unit.trim_start() {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "KiB" | "k" | "K" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" | "m" | "M" => 1 << 20,
            _ => return Err(None),
        };
        let size = number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
        size.filter(|size| *size <= Respond::LARGEST).ok_or(None)
    });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_an_end() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1000", Some(1_000)),
            ("1MiB", Some(1 << 20)),
            ("64 KiB", Some(65_536)),
            ("2kB", Some(2_000)),
            ("1M", Some(1 << 20)),
            ("4MiB", Some(4 << 20)),
            ("5MiB", None),
            ("1.5MiB", None),
            ("-1", None),
            ("+1", None),
            ("MiB", None),
            ("1TiB", None),
            ("99999999999999999999", None),
            ("18446744073709551615MiB", None),
        ] {
            assert_eq!(SIZE.parse(text).ok(), bytes, "{text:?}");
        }
    }
}
