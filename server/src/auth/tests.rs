//! Which backends get in, and as which identity.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{AlertDescription, CertificateError, Error};

use ptth_link::alpn;
use ptth_link::token::Token;

use super::*;
use crate::config::Admission;
use crate::identity::Identity;
use crate::tls::testing::*;

const LABEL: &[&[u8]] = &[alpn::PTTH];

fn p256() -> PrivateKeyDer<'static> {
    KeyPair::generate().unwrap().into()
}

#[test]
fn a_known_key_gets_in_and_is_known_by_it() {
    let (token, other) = (Token::generate(), Token::generate());
    let tls = gateway(&[&other, &token]);
    for version in BOTH {
        let pair = shake(&tls, client(version, LABEL, Shown::token(&token).into()), "a.example");
        assert!(pair.done(), "{:?}", pair.server_error);
        let identity = Identity::of(&pair.server);
        let expected = Identity {
            key: Some(Key::Ed25519(token.public())),
            name: "laptop-x7.0".into(),
            instance: "laptop-x7".into(),
            ours: true,
            sni: Some("a.example".into()),
            chain: identity.chain.clone(),
            ..Identity::default()
        };
        assert_eq!((identity.chain.len(), &identity), (1, &expected));
    }
}

#[test]
fn an_unknown_key_is_refused_inside_the_handshake_with_access_denied() {
    let tls = gateway(&[&Token::generate()]);
    let refused = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    for version in BOTH {
        let p256 = p256();
        let odd = Shown::new(certificate(&p256, |_| {}), p256);
        for shown in [Shown::token(&Token::generate()), odd] {
            let pair = shake(&tls, client(version, LABEL, shown.into()), "localhost");
            assert_eq!(pair.server_error, Some(refused.clone()));
            let alert = AlertDescription::AccessDenied;
            assert_eq!(pair.client_error, Some(Error::AlertReceived(alert)));
        }
    }
}

#[test]
fn no_certificate_is_refused() {
    let tls = gateway(&[&Token::generate()]);
    let pair = shake(&tls, client(BOTH[1], LABEL, Arc::default()), "localhost");
    assert_eq!(pair.server_error, Some(Error::NoCertificatesPresented));
    let alert = AlertDescription::CertificateRequired;
    assert_eq!(pair.client_error, Some(Error::AlertReceived(alert)));
    // TLS 1.2 has no alert for it.
    let pair = shake(&tls, client(BOTH[0], LABEL, Arc::default()), "localhost");
    assert!(!pair.done() && pair.server_error == Some(Error::NoCertificatesPresented));
}

#[test]
fn a_known_certificate_without_its_key_is_refused() {
    let (token, thief) = (Token::generate(), Token::generate());
    let (stolen, _) = token.certificate("laptop-x7.0", []).unwrap();
    let (_, own_key) = thief.certificate("laptop-x7.0", []).unwrap();
    let tls = gateway(&[&token]);
    for version in BOTH {
        let shown = Shown::new(stolen.clone(), own_key.clone_key());
        let pair = shake(&tls, client(version, LABEL, shown.into()), "localhost");
        let refused = Error::InvalidCertificate(CertificateError::BadSignature);
        assert_eq!(pair.server_error, Some(refused), "{version:?}");
        assert!(pair.client_error.is_some());
    }
}

#[test]
fn the_right_key_gets_in_with_any_certificate() {
    let token = Token::generate();
    let key = token.certificate("", []).unwrap().1;
    let tls = gateway(&[&token]);
    type Change = fn(&mut CertificateParams);
    let table: [(&str, Change, &str); 8] = [
        ("expired", |c| c.not_after = rcgen::date_time_ymd(2001, 1, 1), "odd"),
        ("not yet valid", |c| c.not_before = rcgen::date_time_ymd(3001, 1, 1), "odd"),
        ("an authority's", |c| c.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), "odd"),
        ("without a subject", |c| c.distinguished_name = Default::default(), ""),
        (
            "for a server",
            |c| c.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth],
            "odd",
        ),
        (
            "with an unknown extension",
            |c| {
                c.custom_extensions =
                    vec![CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0])];
            },
            "odd",
        ),
        ("with an empty name", |c| c.distinguished_name.push(DnType::CommonName, ""), ""),
        (
            "with control characters",
            |c| c.distinguished_name.push(DnType::CommonName, "a\n\u{1b}[2J\0"),
            "a\u{fffd}\u{fffd}[2J\u{fffd}",
        ),
    ];
    for (what, change, name) in table {
        for version in BOTH {
            let shown = Shown::new(certificate(&key, change), key.clone_key());
            let pair = shake(&tls, client(version, LABEL, shown.into()), "localhost");
            assert!(pair.done(), "{what}: {:?}", pair.server_error);
            let identity = Identity::of(&pair.server);
            assert_eq!(identity.key, Some(Key::Ed25519(token.public())), "{what}");
            assert_eq!((identity.name.as_str(), identity.ours), (name, false), "{what}");
        }
    }
}

#[test]
fn the_right_key_gets_in_though_somebody_else_signed() {
    let token = Token::generate();
    let key = token.certificate("", []).unwrap().1;
    let issuer = rcgen::Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
    let params = CertificateParams::default();
    let signed = params.signed_by(&KeyPair::try_from(&key).unwrap(), &issuer).unwrap();
    let shown = Shown::new(signed.into(), key);
    assert!(shake(&gateway(&[&token]), client(BOTH[1], LABEL, shown.into()), "localhost").done());
}

#[test]
fn an_open_gateway_takes_any_key_and_none() {
    let tls = with(Admission::Open);
    let token = Token::generate();
    let (p256, another) = (p256(), p256());
    let p256_shown = || Shown::new(certificate(&p256, |_| {}), p256.clone_key());
    let another_shown = Shown::new(certificate(&another, |_| {}), another);
    let enter = |version, shown: Arc<Shown>| {
        let pair = shake(&tls, client(version, LABEL, Arc::clone(&shown)), "localhost");
        assert!(pair.done(), "{:?} {:?}", pair.server_error, pair.client_error);
        assert_eq!(shown.asked(), 1);
        let key = Identity::of(&pair.server).key;
        assert!(key.is_none_or(|key| tls.known.admits_generally(Some(&key))));
        key
    };
    for version in BOTH {
        let known = enter(version, Shown::token(&token).into());
        assert_eq!(known, Some(Key::Ed25519(token.public())));
        assert_eq!(enter(version, Arc::default()), None);
        let odd = enter(version, p256_shown().into());
        assert!(matches!(odd, Some(Key::Other(_))));
        assert_eq!(enter(version, p256_shown().into()), odd);
    }
    assert_ne!(enter(BOTH[1], another_shown.into()), enter(BOTH[1], p256_shown().into()));
}

#[test]
fn an_open_gateway_wants_proof_of_a_key_all_the_same() {
    let (token, thief) = (Token::generate(), Token::generate());
    let (stolen, _) = token.certificate("", []).unwrap();
    let shown = Shown::new(stolen, thief.certificate("", []).unwrap().1);
    let pair = shake(&with(Admission::Open), client(BOTH[1], LABEL, shown.into()), "localhost");
    assert!(!pair.done());
}

#[test]
fn the_instance_is_the_name_up_to_its_last_dot() {
    let token = Token::generate();
    let long = |end: &str| format!("{}{end}", "x".repeat(70));
    let table = [
        ("laptop-x7.0", "laptop-x7.0", "laptop-x7"),
        ("my.host-x7.12", "my.host-x7.12", "my.host-x7"),
        ("nodejs", "nodejs", "nodejs"),
        ("käse.1", "käse.1", "käse"),
        (".0", ".0", ""),
    ];
    for (common_name, name, instance) in table {
        let identity = Identity::claimed(&token.certificate(common_name, []).unwrap().0);
        assert_eq!((&*identity.name, &*identity.instance), (name, instance));
    }
    let name = |end| Identity::claimed(&token.certificate(&long(end), []).unwrap().0).name;
    assert_eq!(name(".0").chars().count(), 64);
    assert_ne!(name(".0"), name(".1"), "two tunnels would replace each other");
    assert_eq!(name(".0"), name(".0"));
}

#[test]
fn garbage_is_nobody() {
    let nobody = Identity::claimed(&CertificateDer::from(vec![0x30, 0x80, 0xff]));
    assert_eq!(nobody, Identity::default());
}
