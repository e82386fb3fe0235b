//! Tokens made by hand: what is signed well and short-lived gets in, and nothing else.

mod forged;

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, SigningKey};
use serde_json::json;

use ptth_link::crypto;

use super::*;
use crate::auth::testing::*;
use crate::tls::testing::Scratch;

const DAY: i64 = 86_400;
const OLD: &[u8] = b"an old secret of more than 32 bytes";
const NEW: &[u8] = b"a new secret, of more than 32 bytes";

/// The issuer: a folder with the keys that the gateway knows.
struct Issuer {
    folder: Scratch,
    ed25519: KeyPair,
    rsa: KeyPair,
}

impl Issuer {
    fn new() -> Self {
        let folder = Scratch::new();
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let rsa = include_str!("tests/rsa.pem");
        let rsa = KeyPair::from_pkcs8_pem_and_sign_algo(rsa, &PKCS_RSA_SHA256).unwrap();
        folder.write("old", OLD);
        folder.write("new", [NEW, b"\r\n"].concat());
        folder.write("ed25519.pem", ed25519.public_key_pem());
        folder.write("rsa.pem", rsa.public_key_pem());
        #[cfg(unix)]
        for secret in ["old", "new"] {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(folder.0.join(secret), mode).unwrap();
        }
        Self { folder, ed25519, rsa }
    }

    /// A gateway that knows all the keys, and has some further settings.
    fn gateway(&self, further: Value) -> Arc<dyn Credential> {
        let mut settings = json!({
            "hs256_files": ["old", "new"],
            "eddsa_files": ["ed25519.pem"],
            "rs256_files": ["rsa.pem"],
        });
        settings.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        let (credential, files) = load(&self.folder, json!({ "jwt": settings })).unwrap();
        assert_eq!(files.warnings, [] as [String; 0]);
        credential
    }

    /// A token for each of the keys.
    fn tokens(&self, claims: &Value) -> [String; 4] {
        let by = |pair: &KeyPair, message: &str| pair.sign(message.as_bytes()).unwrap();
        [
            hs256(OLD, claims),
            hs256(NEW, claims),
            token(&json!({ "alg": "EdDSA" }), claims, |message| by(&self.ed25519, message)),
            token(&json!({ "typ": "JWT", "alg": "RS256" }), claims, |m| by(&self.rsa, m)),
        ]
    }
}

fn token(header: &Value, claims: &Value, sign: impl Fn(&str) -> Vec<u8>) -> String {
    raw(&header.to_string(), &claims.to_string(), sign)
}

fn raw(header: &str, claims: &str, sign: impl Fn(&str) -> Vec<u8>) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", part(header.as_bytes()), part(claims.as_bytes()));
    format!("{message}.{}", part(&sign(&message)))
}

fn hs256(secret: &[u8], claims: &Value) -> String {
    token(&json!({ "alg": "HS256", "typ": "JWT" }), claims, |message| hmac(secret, message))
}

fn hmac(secret: &[u8], message: &str) -> Vec<u8> {
    crypto::hmac_sha256(secret, message.as_bytes()).to_vec()
}

fn now() -> i64 {
    jsonwebtoken::get_current_timestamp().try_into().unwrap()
}

/// A day, from a minute ago.
fn good() -> Value {
    json!({ "nbf": now() - 60, "exp": now() + DAY })
}

/// Good claims with some others; `null` takes one away.
fn with(others: Value) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn bearer(credential: &Arc<dyn Credential>, token: &str) -> Result<Pass, Refusal> {
    show(credential, &format!("Bearer {token}"))
}

#[test]
fn a_token_by_any_of_the_keys_gets_in_and_is_known_by_its_key() {
    let issuer = Issuer::new();
    let gateway = issuer.gateway(json!({}));
    let marks = issuer.tokens(&good()).map(|token| {
        let pass = bearer(&gateway, &token).unwrap();
        assert_eq!(pass.name, None);
        assert!(gateway.keeps(pass.mark));
        assert_eq!(bearer(&gateway, &token).unwrap().mark, pass.mark);
        pass.mark
    });
    for (index, mark) in marks.iter().enumerate() {
        assert!(!marks[..index].contains(mark));
    }
    assert_eq!(gateway.challenge(), Some("Bearer"));
    assert_eq!(judge(&gateway, &nothing()), Err(Refusal::Absent));
    assert_eq!(show(&gateway, "Basic YTpi"), Err(Refusal::Absent));
}

#[test]
fn a_secret_that_was_rotated_out_lets_nobody_in_and_keeps_nobody() {
    let issuer = Issuer::new();
    let before = issuer.gateway(json!({}));
    let [old, new, ..] = issuer.tokens(&good());
    let marks = [&old, &new].map(|token| bearer(&before, token).unwrap().mark);
    let after = issuer.gateway(json!({ "hs256_files": ["new"], "rs256_files": [] }));
    assert_eq!(bearer(&after, &old), Err(Refusal::Wrong("no key has signed it")));
    assert_eq!(bearer(&after, &new).unwrap().mark, marks[1]);
    assert_eq!(marks.map(|mark| after.keeps(mark)), [false, true]);
    // Other limits change nothing for a tunnel that is there; another audience or name does.
    let longer = issuer.gateway(json!({ "max_lifetime_days": 90, "leeway_seconds": 0 }));
    assert_eq!(marks.map(|mark| longer.keeps(mark)), [true, true]);
    for rule in [json!({ "audience": "a" }), json!({ "issuer": "a" }), json!({ "name_claim": "a" })]
    {
        assert_eq!(marks.map(|mark| issuer.gateway(rule.clone()).keeps(mark)), [false, false]);
    }
}

/// The 31 days are days: tokens with dates in milliseconds or nanoseconds live for too long.
#[test]
fn dates_are_there_in_seconds_past_or_to_come_and_near() {
    let issuer = Issuer::new();
    let gateway = issuer.gateway(json!({}));
    let n = now();
    let (expired, immature, long, undated) = (
        "it has expired",
        "it isn't valid yet",
        "it lives for longer than `max_lifetime_days`",
        "it has neither `nbf` nor `iat`",
    );
    let table = [
        (json!({ "exp": n + 31 * DAY, "nbf": n }), None),
        (json!({ "exp": n + 31 * DAY + 1, "nbf": n }), Some(long)),
        (json!({ "exp": n + 31 * DAY, "iat": n }), None),
        (json!({ "exp": n + 31 * DAY + 1, "iat": n }), Some(long)),
        (json!({ "exp": n + DAY, "iat": n - 365 * DAY, "nbf": n }), None),
        (json!({ "exp": n + DAY, "nbf": n - 31 * DAY }), Some(long)),
        (json!({ "exp": (n + DAY) * 1000, "nbf": n }), Some(long)),
        (json!({ "exp": (n + DAY) * 1_000_000_000, "nbf": n }), Some(long)),
        (json!({ "exp": (n + 40 * DAY) * 1000, "nbf": n * 1000 }), Some(immature)),
        (json!({ "exp": u64::MAX, "nbf": n }), Some(long)),
        (json!({ "exp": 1e300, "nbf": n }), Some("it has no `exp`")),
        (json!({ "exp": n + DAY }), Some(undated)),
        (json!({ "exp": n + DAY, "iat": null }), Some(undated)),
        (json!({ "exp": n + DAY, "nbf": null, "iat": n }), Some("a date of it is no number")),
        (json!({ "exp": n + DAY, "iat": n.to_string() }), Some(undated)),
        (json!({ "exp": n + DAY, "nbf": n.to_string() }), Some("a date of it is no number")),
        (json!({ "exp": n + DAY, "nbf": -1 }), Some("a date of it is no number")),
        (json!({ "nbf": n }), Some("it has no `exp`")),
        (json!({ "exp": (n + DAY).to_string(), "nbf": n }), Some("it has no `exp`")),
        (json!({ "exp": [n + DAY], "nbf": n }), Some(NO_TOKEN)),
        (json!({}), Some("it has no `exp`")),
        // The clocks may differ by a minute.
        (json!({ "exp": n - 30, "nbf": n - DAY }), None),
        (json!({ "exp": n - 61, "nbf": n - DAY }), Some(expired)),
        (json!({ "exp": n + DAY, "nbf": n + 50 }), None),
        (json!({ "exp": n + DAY, "nbf": n + 200 }), Some(immature)),
        (json!({ "exp": n + DAY, "iat": n + 200 }), Some(immature)),
        (json!({ "exp": n as f64 + 0.5, "iat": n as f64 - 0.5 }), None),
        (json!({ "exp": 0, "nbf": 0 }), Some(expired)),
    ];
    for (claims, why) in table {
        for token in issuer.tokens(&claims) {
            let verdict = bearer(&gateway, &token).map(|_| ());
            assert_eq!(verdict, why.map_or(Ok(()), |why| Err(Refusal::Wrong(why))), "{claims}");
        }
    }
    let week = issuer.gateway(json!({ "max_lifetime_days": 7, "leeway_seconds": 0 }));
    let verdict = |claims: Value| bearer(&week, &hs256(NEW, &claims)).map(|_| ());
    assert_eq!(verdict(json!({ "exp": n + 7 * DAY, "nbf": n })), Ok(()));
    assert_eq!(verdict(json!({ "exp": n + 7 * DAY + 1, "nbf": n })), Err(Refusal::Wrong(long)));
    assert_eq!(verdict(json!({ "exp": n - 5, "nbf": n - 9 })), Err(Refusal::Wrong(expired)));
}

#[test]
fn the_audience_is_ours_and_neither_wrong_nor_missing() {
    let issuer = Issuer::new();
    let gateway = issuer.gateway(json!({ "audience": "tunnel", "issuer": "ci" }));
    let (other, missing) = ("it is for another audience", "it has no `aud`");
    let table = [
        (json!({ "iss": "ci", "aud": "tunnel" }), None),
        (json!({ "iss": "ci", "aud": ["web", "tunnel"] }), None),
        (json!({ "iss": "ci", "aud": "web" }), Some(other)),
        (json!({ "iss": "ci", "aud": "Tunnel" }), Some(other)),
        (json!({ "iss": "ci", "aud": "tunnels" }), Some(other)),
        (json!({ "iss": "ci", "aud": "" }), Some(other)),
        (json!({ "iss": "ci", "aud": ["web"] }), Some(other)),
        (json!({ "iss": "ci", "aud": [] }), Some(other)),
        (json!({ "iss": "ci", "aud": { "tunnel": "tunnel" } }), Some(missing)),
        (json!({ "iss": "ci", "aud": 5 }), Some(missing)),
        (json!({ "iss": "ci", "aud": null }), Some(missing)),
        (json!({ "iss": "ci" }), Some(missing)),
        (json!({ "iss": "me", "aud": "tunnel" }), Some("it is of another issuer")),
        (json!({ "aud": "tunnel" }), Some("it has no `iss`")),
    ];
    for (claims, why) in table {
        for token in issuer.tokens(&with(claims.clone())) {
            let verdict = bearer(&gateway, &token).map(|_| ());
            assert_eq!(verdict, why.map_or(Ok(()), |why| Err(Refusal::Wrong(why))), "{claims}");
        }
    }
    // RFC 7519 §4.1.3: a party that `aud` doesn't name must refuse.
    let unnamed = issuer.gateway(json!({}));
    let token = hs256(NEW, &with(json!({ "aud": "web" })));
    assert_eq!(bearer(&unnamed, &token), Err(Refusal::Wrong(other)));
}

#[test]
fn the_named_claim_is_the_dynamic_name() {
    let issuer = Issuer::new();
    let gateway = issuer.gateway(json!({ "name_claim": "tid" }));
    let long = "a".repeat(63);
    for (claim, name) in [("bob", "bob"), ("bob-2", "bob-2"), ("0", "0"), (&long, &long)] {
        for token in issuer.tokens(&with(json!({ "tid": claim }))) {
            assert_eq!(bearer(&gateway, &token).unwrap().name.as_deref(), Some(name));
        }
    }
    let missing = Refusal::Wrong("the claim with the name is missing");
    for claim in [json!(null), json!(5), json!(["bob"]), json!({ "bob": "bob" }), json!(true)] {
        let verdict = bearer(&gateway, &hs256(NEW, &with(json!({ "tid": claim }))));
        assert_eq!(verdict, Err(missing), "{claim}");
    }
    let other = Refusal::Wrong("the claim with the name isn't in lower case");
    for claim in ["Bob", "BOB", "bob-A"] {
        let verdict = bearer(&gateway, &hs256(NEW, &with(json!({ "tid": claim }))));
        assert_eq!(verdict, Err(other), "{claim}");
    }
    let odd = Refusal::Wrong("the claim with the name is no label of a host name");
    let too_long = "a".repeat(64);
    for claim in
        ["", "-a", "a-", "a.b", "*", "a/b", "a b", "a\n", "bücher", "a_b", "a\u{0}", &too_long]
    {
        let verdict = bearer(&gateway, &hs256(NEW, &with(json!({ "tid": claim }))));
        assert_eq!(verdict, Err(odd), "{claim:?}");
    }
}

#[test]
fn settings_that_can_not_work_are_told_with_their_file() {
    let issuer = Issuer::new();
    let folder = &issuer.folder;
    folder.write("short.pem", include_str!("tests/short.pem"));
    folder.write("private.pem", issuer.ed25519.serialize_pem());
    folder.write("broken.pem", "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n");
    folder.write("odd.pem", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
    folder.write("empty", "\u{feff}\r\n");
    let table = [
        (json!({}), "`jwt` needs a key"),
        (json!({ "hs256_files": ["empty"] }), "empty is empty"),
        (json!({ "hs256_files": ["gone"] }), "gone can't be read"),
        (
            json!({ "hs256_files": ["rsa.pem"] }),
            "holds a PEM key where `hs256_files` wants a secret",
        ),
        (json!({ "rs256_files": ["ed25519.pem"] }), "ed25519.pem holds a key that isn't RSA"),
        (json!({ "eddsa_files": ["rsa.pem"] }), "rsa.pem holds a key that isn't Ed25519"),
        (json!({ "eddsa_files": ["private.pem"] }), "holds a private key"),
        (json!({ "eddsa_files": ["broken.pem"] }), "broken.pem isn't proper PEM"),
        (json!({ "eddsa_files": ["odd.pem"] }), "odd.pem holds no proper public key"),
        (json!({ "eddsa_files": ["old"] }), "old holds no public key"),
        (json!({ "rs256_files": ["short.pem"] }), "an RSA key of 1024 bits"),
        (json!({ "hs256_files": ["old"], "audience": "" }), "not empty"),
        (json!({ "hs256_files": ["old"], "leeway_seconds": 61 }), "60 at most"),
        (json!({ "hs256_files": ["old"], "max_lifetime_days": 0 }), "must be 1 to 3650"),
    ];
    for (settings, expected) in table {
        let said = refused(folder, json!({ "jwt": settings }));
        assert!(said.contains(expected), "{said}");
    }
    let said = misspelt(json!({ "jwt": { "hs256_file": "old" } }));
    assert!(said.contains("unknown field `hs256_file`"), "{said}");
    folder.write("weak", "0123456789abcdef0123456789abcde");
    let (_, files) = load(folder, json!({ "jwt": { "hs256_files": ["weak"] } })).unwrap();
    assert!(files.warnings.iter().any(|said| said.contains("a secret of 31 bytes")));
}

/// Several keys may be in one file: that's how public keys are rotated.
#[test]
fn a_file_may_hold_several_public_keys() {
    let issuer = Issuer::new();
    let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let both = format!("# two\n{}{}", other.public_key_pem(), issuer.ed25519.public_key_pem());
    issuer.folder.write("ed25519.pem", both);
    let gateway = issuer.gateway(json!({}));
    let header = json!({ "alg": "EdDSA" });
    for pair in [&issuer.ed25519, &other] {
        let token = token(&header, &good(), |m| pair.sign(m.as_bytes()).unwrap());
        assert!(bearer(&gateway, &token).is_ok());
    }
}
