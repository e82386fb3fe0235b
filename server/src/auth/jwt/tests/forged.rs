//! Forged tokens: `alg: none`, keys taken for others, parts exchanged.

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use super::*;

#[test]
fn an_algorithm_that_nobody_asked_for_is_refused() {
    let issuer = Issuer::new();
    let gateway = issuer.gateway(json!({}));
    let claims = good();
    for alg in ["none", "None", "NONE", "nOnE", "", "HS384x", "hs256"] {
        for sign in [(|_| Vec::new()) as fn(&str) -> Vec<u8>, |message| hmac(NEW, message)] {
            let verdict = bearer(&gateway, &token(&json!({ "alg": alg }), &claims, sign));
            assert_eq!(verdict, Err(Refusal::Wrong(NO_TOKEN)), "{alg}");
        }
    }
    // Known to the library, but to no key.
    for alg in ["HS384", "HS512", "ES256", "PS256", "RS384", "RS512"] {
        let forged = token(&json!({ "alg": alg }), &claims, |message| hmac(NEW, message));
        let verdict = bearer(&gateway, &forged);
        assert_eq!(verdict, Err(Refusal::Wrong("no key is for its algorithm")), "{alg}");
    }
    // RFC 7515 §4.1.11 and RFC 7797.
    for crit in [json!(["exp"]), json!([]), json!(["b64"])] {
        let header = json!({ "alg": "HS256", "crit": crit, "b64": false });
        let verdict = bearer(&gateway, &token(&header, &claims, |message| hmac(NEW, message)));
        assert!(matches!(verdict, Err(Refusal::Wrong(_))), "{crit}: {verdict:?}");
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let issuer = Issuer::new();
    let gateway = issuer.gateway(json!({}));
    let public = issuer.gateway(json!({ "hs256_files": [] }));
    for pair in [&issuer.rsa, &issuer.ed25519] {
        let pem = pair.public_key_pem();
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).unwrap();
        let raw = pair.public_key_raw();
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &spki[..], raw, b""] {
            for gateway in [&gateway, &public] {
                let verdict = bearer(gateway, &hs256(secret, &good()));
                assert!(matches!(verdict, Err(Refusal::Wrong(_))));
            }
        }
    }
    // And neither is one kind of key good for the other's algorithm.
    let sign = |alg: &str, pair: &KeyPair| {
        token(&json!({ "alg": alg }), &good(), |m| pair.sign(m.as_bytes()).unwrap())
    };
    for token in [sign("RS256", &issuer.ed25519), sign("EdDSA", &issuer.rsa)] {
        let refused = Refusal::Wrong("no key has signed it");
        assert_eq!(bearer(&gateway, &token), Err(refused));
    }
    // A key that the token brings along counts for nothing.
    let stranger = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519",
        "x": URL_SAFE_NO_PAD.encode(stranger.public_key_raw()) });
    let header = json!({ "alg": "EdDSA", "jwk": jwk });
    let own = token(&header, &good(), |m| stranger.sign(m.as_bytes()).unwrap());
    assert!(matches!(bearer(&gateway, &own), Err(Refusal::Wrong(_))));
}

#[test]
fn what_is_no_token_or_was_changed_is_refused() {
    let issuer = Issuer::new();
    let gateway = issuer.gateway(json!({}));
    for good in issuer.tokens(&good()) {
        let (message, signature) = good.rsplit_once('.').unwrap();
        let (header, claims) = message.split_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.encode(with(json!({ "admin": true })).to_string());
        for bad in [
            format!("{header}.{forged}.{signature}"),
            format!("{message}."),
            message.to_owned(),
            format!("{good}."),
            format!("{good}.{signature}"),
            format!(".{good}"),
            format!("{good}="),
            format!("{header}..{signature}"),
            format!(".{claims}.{signature}"),
            "..".into(),
            ".".into(),
            "a.b.c".into(),
            good.to_uppercase(),
        ] {
            let verdict = bearer(&gateway, &bad);
            assert!(matches!(verdict, Err(Refusal::Wrong(_))), "{bad}");
        }
    }
    let sign = |message: &str| hmac(NEW, message);
    let header = r#"{"alg":"HS256"}"#;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let n = now();
    for claims in [
        "",
        "null",
        "[]",
        "\"a\"",
        "{",
        &deep,
        &format!(r#"{{"exp":{},"nbf":{n},"exp":{}}}"#, n - DAY, n + DAY),
    ] {
        let verdict = bearer(&gateway, &raw(header, claims, sign));
        assert!(matches!(verdict, Err(Refusal::Wrong(_))), "{claims:.50}");
    }
    for header in ["", "null", "{}", r#"{"alg":5}"#, r#"{"alg":"HS256","alg":"none"}"#, &deep] {
        let verdict = bearer(&gateway, &raw(header, &good().to_string(), sign));
        assert!(matches!(verdict, Err(Refusal::Wrong(_))), "{header:.50}");
    }
}
