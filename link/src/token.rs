//! The token that admits a backend: an Ed25519 key pair, written as one word.
//!
//! The private half (`2ptth_…`) is what a user copies to the client; the public half (`2ptth_pub_…`)
//! is all that the gateway needs. No secret crosses the wire: the client proves in the TLS handshake
//! that it holds the key, by a certificate that it signs itself.
//!
//! Invariant: nothing here prints the private half but [`Token::reveal`].

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::crypto;

/// The subject's organization in each certificate that [`Token::certificate`] makes. It tells the
/// gateway that the backend is this project's client; it proves nothing.
pub const ORGANIZATION: &str = "2ptth-client";

/// Whether a backend may ask for `name`: a segment of a path, of unreserved characters and `%` (RFC 3986 §2.3). Hosts
/// know no case, so only one that is also a label of a host in lower case can become a host.
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    (1..=63).contains(&name.len()) && name.bytes().all(allowed) && !matches!(name, "." | "..")
}

/// The private half: its holder may be the backend.
#[derive(Clone)]
pub struct Token {
    seed: [u8; 32],
    public: PublicKey,
}

impl Token {
    pub fn generate() -> Self {
        Self::from_seed(crypto::random()).expect("every 32 bytes are an Ed25519 seed (RFC 8032)")
    }

    /// Reads a token, blanks, line ends and a byte order mark around it ignored.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        match parse_half(trim(text))? {
            Half::Private(token) => Ok(token),
            Half::Public(_) => Err(TokenError::PublicHalf),
        }
    }

    /// The token in full, for its user only.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.seed))
    }

    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Makes a certificate for this key, signed by itself, and returns the key with it.
    ///
    /// `common_name` names the tunnel; `O` is [`ORGANIZATION`]; an `OU` is a requested dynamic name ([`is_name`]), or a
    /// path, which begins with `/`. Any date is within its validity: a laptop with a wrong clock must be admitted, and
    /// the gateway checks the key alone.
    pub fn certificate<'a>(
        &self,
        common_name: &str,
        wishes: impl IntoIterator<Item = &'a str>,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TokenError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, ORGANIZATION);
        for wish in wishes {
            subject.push(DnType::OrganizationalUnitName, wish);
        }
        subject.push(DnType::CommonName, common_name);
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        // RFC 5280 §4.1.2.5: "no well-defined expiration date".
        params.not_after = rcgen::date_time_ymd(9999, 12, 31);
        let pair = key_pair(&self.seed)?;
        let certificate = params.self_signed(&pair).map_err(TokenError::Crypto)?;
        Ok((certificate.into(), pkcs8(&self.seed).into()))
    }

    fn from_seed(seed: [u8; 32]) -> Result<Self, TokenError> {
        let pair = key_pair(&seed)?;
        let public = pair.public_key_raw().try_into().map_err(|_| TokenError::Malformed)?;
        Ok(Self { seed, public: PublicKey(public) })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        crypto::same(&self.seed, &other.seed)
    }
}

impl Eq for Token {}

/// The public half: it may be shown, logged and stored anywhere.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key of a SubjectPublicKeyInfo, if it is an Ed25519 key.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        // DER has one encoding for each value, and RFC 8410 §3 forbids parameters: with the length
        // of the key known, all but the key itself is constant, and comparing it is parsing it.
        der.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{PUBLIC}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(crate) enum Half {
    Private(Token),
    Public(PublicKey),
}

/// Tells the halves apart by their length first: one private half in 2²⁴ begins with `2ptth_pub_`.
pub(crate) fn parse_half(word: &str) -> Result<Half, TokenError> {
    if word.is_empty() {
        return Err(TokenError::Empty);
    }
    let rest = word.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
    match (rest.len(), rest.strip_prefix(PUBLIC)) {
        (ENCODED, _) => Ok(Half::Private(Token::from_seed(decode(rest)?)?)),
        (_, Some(key)) if key.len() == ENCODED => Ok(Half::Public(PublicKey(decode(key)?))),
        _ => Err(TokenError::Malformed),
    }
}

/// Whether a text may be a token, so that no message may quote it.
pub fn begins_like_one(text: &str) -> bool {
    trim(text).starts_with(PREFIX)
}

/// Removes blanks, line ends and a byte order mark around a word.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

fn decode(text: &str) -> Result<[u8; 32], TokenError> {
    // The cause is dropped on purpose: it quotes a byte of the secret.
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
    bytes.try_into().map_err(|_| TokenError::Malformed)
}

fn key_pair(seed: &[u8; 32]) -> Result<KeyPair, TokenError> {
    KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8(seed), &PKCS_ED25519).map_err(TokenError::Crypto)
}

fn pkcs8(seed: &[u8; 32]) -> PrivatePkcs8KeyDer<'static> {
    PrivatePkcs8KeyDer::from([&PKCS8_PREFIX, &seed[..]].concat())
}

const PREFIX: &str = "2ptth_";
const PUBLIC: &str = "pub_";
/// 32 bytes in base64 without padding.
const ENCODED: usize = 43;

/// RFC 8410 §7: PKCS#8 version 1, the algorithm, and the head of two octet strings around the seed.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// RFC 8410 §4: the algorithm 1.3.101.112, and the head of the bit string around the key.
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why something isn't a token. Never contains any of its text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is empty")]
    Empty,
    #[error("that isn't a token; a token begins with `2ptth_`")]
    Prefix,
    /// Characters are missing, left over or not base64url.
    #[error("the token is damaged; copy it again, in full")]
    Malformed,
    #[error(
        "that is the public half, for the gateway; the client needs the token that begins with `2ptth_` without `pub_`"
    )]
    PublicHalf,
    #[error("the cryptographic library refused the token")]
    Crypto(#[source] rcgen::Error),
}

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
    use rustls::server::ParsedCertificate;

    use super::*;

    /// RFC 8032 §7.1, test 1.
    const SEED: &str = "2ptth_nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const PUBLIC_KEY: &str = "2ptth_pub_11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    #[test]
    fn the_public_half_follows_from_the_private_one() {
        let token = Token::parse(SEED).unwrap();
        assert_eq!(token.public().to_string(), PUBLIC_KEY);
        assert!(matches!(parse_half(PUBLIC_KEY), Ok(Half::Public(key)) if key == token.public()));
        assert_eq!(token.reveal(), SEED);
    }

    #[test]
    fn what_surrounds_a_token_is_ignored() {
        for text in [&format!("{SEED}\r\n"), &format!("\u{feff} {SEED}"), &format!("\t{SEED}\n\n")]
        {
            assert_eq!(Token::parse(text).unwrap().reveal(), SEED, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_quoting_it() {
        let changed = |from: &str, to: &str| SEED.replacen(from, to, 1);
        let table = [
            ("", TokenError::Empty),
            (" \r\n", TokenError::Empty),
            ("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", TokenError::Prefix),
            (&changed("2ptth_", "2PTTH_"), TokenError::Prefix),
            (&format!("\"{SEED}\""), TokenError::Prefix),
            (&SEED[..SEED.len() - 1], TokenError::Malformed),
            (&format!("{SEED}A"), TokenError::Malformed),
            (&format!("{SEED}="), TokenError::Malformed),
            (&changed("_9W", "/9W"), TokenError::Malformed),
            // Bits beyond the 256th are set: another spelling of the same key.
            (&changed("f2A", "f2B"), TokenError::Malformed),
            ("2ptth_", TokenError::Malformed),
            ("2ptth_pub_", TokenError::Malformed),
            (PUBLIC_KEY, TokenError::PublicHalf),
        ];
        for (text, expected) in table {
            let error = Token::parse(text).unwrap_err();
            assert_eq!(error, expected, "{text:?}");
            assert!(!format!("{error} {error:?}").contains("nWGxne"));
        }
    }

    #[test]
    fn a_private_half_that_looks_public_is_private() {
        let text = format!("2ptth_pub_{}", "A".repeat(39));
        assert_eq!(Token::parse(&text).unwrap().reveal(), text);
    }

    #[test]
    fn tokens_differ_and_never_show_in_debug_output() {
        let (one, other) = (Token::generate(), Token::generate());
        assert_ne!(one, other);
        assert_eq!(format!("{one:?}"), "Token(redacted)");
        assert_eq!(Token::parse(&one.reveal()), Ok(one));
    }

    #[test]
    fn a_name_is_one_label_of_a_host() {
        let longest = "a".repeat(63);
        for name in
            ["a", "bob", "x-1", "0", "xn--bcher-kva", "EXAMPLE_TARGET", "a.b~c%20", &longest]
        {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(64);
        for name in ["", ".", "..", "a/b", "a?b", "a b", "b\u{fc}cher", "*", "a\n", "a+b", &long] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn the_name_that_is_asked_for_is_the_certificates_unit() {
        let shown = |name| Token::generate().certificate("x.0", name).unwrap().0;
        // 2.5.4.11 with a UTF8String (RFC 5280, appendix A.1).
        let unit = [&[0x06, 3, 0x55, 4, 11, 0x0c, 4], &b"blog"[..]].concat();
        assert!(shown(Some("blog")).windows(unit.len()).any(|window| window == unit));
        assert!(!shown(None).windows(5).any(|window| window == &unit[..5]));
    }

    #[test]
    fn the_certificate_carries_the_key_and_nothing_else_does() {
        let token = Token::generate();
        let (certificate, _) = token.certificate("laptop-x7.0", []).unwrap();
        let parsed = ParsedCertificate::try_from(&certificate).unwrap();
        let spki = parsed.subject_public_key_info();
        assert_eq!(PublicKey::from_spki(&spki), Some(token.public()));

        for change in 0..12 {
            let mut other = spki.to_vec();
            other[change] ^= 1;
            assert_eq!(PublicKey::from_spki(&other), None, "byte {change}");
        }
        let (longer, shorter) = ([&spki[..], &[0]].concat(), &spki[..43]);
        for other in [&longer[..], shorter, &[&[0][..], &spki[..]].concat(), &[]] {
            assert_eq!(PublicKey::from_spki(other), None);
        }
    }

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
