//! Reads the value of Authorization (RFC 9110 §11.4): a scheme, blanks, and what it carries.
//!
//! Pure. What is shown here comes from a stranger, and may be a secret: nothing is printed.

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;

/// The challenge of schemes that carry one token (RFC 6750 §3).
pub(super) const BEARER: &str = "Bearer";
/// The challenge of user and password (RFC 7617 §2 and §2.1).
pub const BASIC: &str = "Basic realm=\"2ptth\", charset=\"UTF-8\"";

/// The token of a `Bearer` value.
pub fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    credentials(value, "bearer")
}

/// User and password of a `Basic` value. A password may hold colons, a user can't (RFC 7617 §2).
pub fn basic(value: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut user = BASE64.decode(credentials(value, "basic")?).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon).split_off(1);
    Some((user, password))
}

/// What follows the scheme, if it is this one: one word, which may be no other thing.
fn credentials<'a>(value: &'a HeaderValue, scheme: &str) -> Option<&'a [u8]> {
    let value = value.as_bytes().trim_ascii();
    let (name, rest) = value.split_at_checked(value.iter().position(|byte| *byte == b' ')?)?;
    let word = rest.trim_ascii();
    // The scheme's case doesn't matter (RFC 9110 §11.1); the rest is visible, in one piece.
    let fits = name.eq_ignore_ascii_case(scheme.as_bytes());
    (fits && !word.is_empty() && word.iter().all(u8::is_ascii_graphic)).then_some(word)
}

/// With and without padding: clients differ, and neither spelling means anything else.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_bearer_value_carries_one_word() {
        for text in ["Bearer abc", "bearer abc", "BEARER   abc ", " Bearer abc"] {
            assert_eq!(bearer(&value(text)), Some(&b"abc"[..]), "{text:?}");
        }
        for text in [
            "",
            "abc",
            "Bearer",
            "Bearer ",
            "Bearer\tabc",
            "Bearer a b",
            "Bearerabc",
            "Basic abc",
            "Bearer abc, Bearer abd",
            "Bearer é",
        ] {
            assert_eq!(bearer(&value(text)), None, "{text:?}");
        }
    }

    /// The examples of RFC 7617 §2 and §2.1, among others.
    #[test]
    fn a_basic_value_carries_user_and_password() {
        let table = [
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin", "open sesame"),
            ("basic dGVzdDoxMjPCow==", "test", "123£"),
            ("Basic dGVzdDoxMjPCow", "test", "123£"),
            ("Basic YTpiOmM=", "a", "b:c"),
            ("Basic Og==", "", ""),
        ];
        for (text, user, password) in table {
            let expected = (user.as_bytes().to_vec(), password.as_bytes().to_vec());
            assert_eq!(basic(&value(text)), Some(expected), "{text:?}");
        }
        // No colon, no base64, base64url, bits left over, another scheme.
        for text in ["Basic YWJj", "Basic a:b", "Basic __8_", "Basic Oh==", "Bearer Og==", "Basic"]
        {
            assert_eq!(basic(&value(text)), None, "{text:?}");
        }
    }
}
