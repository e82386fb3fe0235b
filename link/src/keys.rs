//! Token files: the keys that a gateway knows, one a line.

use crate::token::{Half, PublicKey, parse_half, trim};

/// Reads the file of a gateway: one key a line, either half. What follows a `#` is a comment;
/// blank lines, CRLF and a byte order mark are fine. A key that is there twice counts once.
///
/// A file without a key is an error: it would lock all backends out, and is never what was meant. No error quotes any
/// of the text.
pub fn parse_keys(text: &str) -> Result<Vec<PublicKey>, String> {
    let mut keys = Vec::new();
    for (line, word) in words(text) {
        let key = match parse_half(word).map_err(|why| format!("line {line}: {why}"))? {
            Half::Private(token) => token.public(),
            Half::Public(key) => key,
        };
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if keys.is_empty() { Err(NO_KEY.to_owned()) } else { Ok(keys) }
}

const NO_KEY: &str = "there is no key in it; write one a line";

/// Whether a token file holds a private half, so that other users must not read it.
pub fn holds_secret(text: &str) -> bool {
    words(text).any(|(_, word)| matches!(parse_half(word), Ok(Half::Private(_))))
}

/// Each line's number, from 1, and its text without blanks around it and comments.
pub fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.split('\n').enumerate();
    // `#` isn't in the alphabet of base64url, so it can't be part of a key.
    lines
        .map(|(index, line)| (index + 1, trim(line.split('#').next().unwrap_or_default())))
        .filter(|(_, word)| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::token::{Token, TokenError};

    use super::*;

    #[test]
    fn either_half_comments_and_every_line_end_are_read() {
        let (a, b) = (Token::generate(), Token::generate());
        let (public, private) = (a.public(), b.reveal());
        let table = [
            (format!("{public}"), vec![a.public()]),
            (format!("{public}\n"), vec![a.public()]),
            (format!("\u{feff}{public}\r\n{private}\r\n"), vec![a.public(), b.public()]),
            (format!("# keys\n\n  {private} # laptop\n#{public}\n"), vec![b.public()]),
            (format!("{public}\n{}\n", a.reveal()), vec![a.public()]),
        ];
        for (text, keys) in table {
            assert_eq!(parse_keys(&text).unwrap(), keys, "{text:?}");
        }
    }

    #[test]
    fn a_file_without_keys_or_with_a_bad_line_is_refused() {
        let key = Token::generate().reveal();
        let bad = |line: usize, why: TokenError| format!("line {line}: {why}");
        let table = [
            (String::new(), NO_KEY.to_owned()),
            ("\u{feff}\r\n# none\n".into(), NO_KEY.to_owned()),
            (format!("{key}\n\n{}\n", &key[1..]), bad(3, TokenError::Prefix)),
            (format!("{key} {key}"), bad(1, TokenError::Malformed)),
        ];
        for (text, expected) in table {
            let error = parse_keys(&text).unwrap_err();
            assert_eq!(error, expected, "{text:?}");
            assert!(!error.contains(&key[6..]));
        }
    }

    #[test]
    fn only_a_private_half_is_a_secret() {
        let token = Token::generate();
        assert!(holds_secret(&format!("# x\r\n{}\r\n", token.reveal())));
        assert!(!holds_secret(&format!("# {}\n{}\n", token.reveal(), token.public())));
    }
}
