//! The ALPN labels that say what is on the other end of a connection.
//!
//! Labels of drafts change; all of them live here, and `--backend-alpn` replaces the list.

use crate::crypto::hex_value;

/// This project's own label, as the ancestor of 2017 spoke it.
pub const PTTH: &[u8] = b"2ptth";
/// draft-thomson-ptth-potato-00.
pub const POTATO_00: &[u8] = b"rh2";
/// draft-thomson-ptth-potato-01.
pub const POTATO_01: &[u8] = b"ph2";
/// draft-thomson-ptth-potato-02: "h2" upside down, in UTF-8.
pub const POTATO_02: &[u8] = &[0xd5, 0x87, 0xc9, 0xa5];
/// HTTP/2 over TLS (RFC 9113 §3.1).
pub const H2: &[u8] = b"h2";
/// HTTP/1.1 over TLS (RFC 7301 §6).
pub const HTTP_1_1: &[u8] = b"http/1.1";
/// A validation server of a directory of certificates (RFC 8737 §6.2).
pub const ACME: &[u8] = b"acme-tls/1";
/// No ALPN label, but the upgrade token of draft-ietf-httpbis-connect-tcp.
pub const CONNECT_TCP: &str = "connect-tcp";

/// The labels that mean "I'm a backend", in the gateway's order of preference.
pub const BACKEND_LABELS: [&[u8]; 4] = [PTTH, POTATO_02, POTATO_01, POTATO_00];

/// Reads a list of backend labels: separated by commas, blanks around each ignored.
///
/// `%HH` stands for the byte HH, as in the `ALPN` header field (RFC 7639 §2.2); UTF-8 text stands
/// for its bytes. So a comma is `%2C` and a per cent sign `%25`. A repeated label counts once. The error is a sentence.
pub fn parse_labels(list: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut labels = Vec::new();
    for text in list.split(',') {
        let label = parse_label(text)?;
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    Ok(labels)
}

/// Reads one backend label, written as in [`parse_labels`].
pub fn parse_label(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    let label = unescape(text).ok_or_else(|| {
        format!(
            "{text:?} has a `%` without two hexadecimal digits after it; write `%25` for the sign itself"
        )
    })?;
    match label.len() {
        0 => Err("an ALPN label is empty; write one or more, like `2ptth,ph2`".to_owned()),
        _ if label == H2 || label == HTTP_1_1 => Err(format!(
            "`{text}` can't mean a backend, since browsers offer it; choose another ALPN label"
        )),
        _ if label == ACME => Err(format!(
            "`{text}` can't mean a backend, since it validates certificates (RFC 8737); choose another ALPN label"
        )),
        1..=MAX_LABEL => Ok(label),
        length => {
            Err(format!("an ALPN label of {length} bytes is too long; TLS allows {MAX_LABEL}"))
        }
    }
}

/// Writes a label so that [`parse_label`] reads it back and a terminal can show it.
pub fn display(label: &[u8]) -> String {
    let written = |byte: &u8| match byte {
        b'!'..=b'~' if !b"%,".contains(byte) => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    label.iter().map(written).collect()
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut label = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        label.push(match byte {
            b'%' => hex_value(bytes.next()?)? << 4 | hex_value(bytes.next()?)?,
            byte => byte,
        });
    }
    Some(label)
}

/// RFC 7301 §3.1: the length of a label is one byte.
const MAX_LABEL: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let table: [(&str, &[&[u8]]); 6] = [
            ("2ptth", &[PTTH]),
            (" 2ptth , ph2 ", &[PTTH, POTATO_01]),
            ("%d5%87%C9%A5", &[POTATO_02]),
            ("\u{0547}\u{0265}", &[POTATO_02]),
            ("a%2Cb,%25", &[b"a,b", b"%"]),
            ("rh2,rh2,ph2,rh2", &[POTATO_00, POTATO_01]),
        ];
        for (text, labels) in table {
            assert_eq!(parse_labels(text).unwrap(), labels, "{text:?}");
        }
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        let long = "x".repeat(256);
        let table = [
            ("", "an ALPN label is empty"),
            ("2ptth,", "an ALPN label is empty"),
            (",", "an ALPN label is empty"),
            ("2ptth,h2", "`h2` can't mean a backend"),
            ("http%2f1.1", "`http%2f1.1` can't mean a backend"),
            ("acme-tls/1", "`acme-tls/1` can't mean a backend"),
            ("%", "\"%\" has a `%` without"),
            ("a%1", "\"a%1\" has a `%` without"),
            ("%+1", "\"%+1\" has a `%` without"),
            (&long, "an ALPN label of 256 bytes is too long"),
        ];
        for (text, error) in table {
            assert!(parse_labels(text).unwrap_err().starts_with(error), "{text:?}");
        }
        assert_eq!(parse_label(&long[1..]).unwrap().len(), 255);
    }

    #[test]
    fn display_is_read_back() {
        assert_eq!(display(PTTH), "2ptth");
        assert_eq!(display(HTTP_1_1), "http/1.1");
        assert_eq!(display(POTATO_02), "%D5%87%C9%A5");
        let every: Vec<u8> = (1..=255).collect();
        assert_eq!(parse_label(&display(&every)).unwrap(), every);
        assert!(display(&every).is_ascii());
        assert_eq!(parse_labels(&display(b"a,b")).unwrap(), [b"a,b"]);
    }

    #[test]
    fn the_defaults_can_be_written_as_a_flag() {
        let flag: Vec<String> = BACKEND_LABELS.iter().map(|label| display(label)).collect();
        assert_eq!(parse_labels(&flag.join(",")).unwrap(), BACKEND_LABELS);
    }
}
