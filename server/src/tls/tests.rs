//! Which configuration a ClientHello gets, and what happens to certificates on disk.

use std::fs;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use rustls::{AlertDescription, CipherSuite, HandshakeKind, ProtocolVersion};
use x509_parser::der_parser;

use ptth_link::token::Token;

use super::testing::*;
use super::*;

const NONE: &[&[u8]] = &[];

/// B2
#[test]
fn the_label_decides_the_side_and_the_protocol() {
    let token = Token::generate();
    let tls = gateway(&[&token]);
    type Row<'a> = (Vec<&'a [u8]>, Side, Option<&'a [u8]>);
    let mut table: Vec<Row<'_>> = vec![
        (
            vec![alpn::H2, alpn::HTTP_1_1],
            Side::Visitor,
            Some(alpn::H2),
        ),
        (
            vec![alpn::HTTP_1_1, alpn::H2],
            Side::Visitor,
            Some(alpn::H2),
        ),
        (vec![alpn::HTTP_1_1], Side::Visitor, Some(alpn::HTTP_1_1)),
        (
            vec![b"foo", alpn::HTTP_1_1],
            Side::Visitor,
            Some(alpn::HTTP_1_1),
        ),
        (vec![], Side::Visitor, None),
        (vec![alpn::PTTH, alpn::H2], Side::Backend, Some(alpn::PTTH)),
        (vec![alpn::H2, alpn::PTTH], Side::Backend, Some(alpn::PTTH)),
        (
            vec![alpn::POTATO_00, alpn::POTATO_02],
            Side::Backend,
            Some(alpn::POTATO_02),
        ),
    ];
    table.extend(alpn::BACKEND_LABELS.map(|label| (vec![label], Side::Backend, Some(label))));
    for version in BOTH {
        // An address is never sent as SNI.
        for name in ["localhost", "192.0.2.1"] {
            for (offered, side, agreed) in &table {
                let shown = Arc::new(Shown::token(&token));
                let pair = shake(&tls, client(version, offered, Arc::clone(&shown)), name);
                let what = format!("{version:?} {name} {offered:?}");
                assert!(
                    pair.done(),
                    "{what}: {:?} {:?}",
                    pair.client_error,
                    pair.server_error
                );
                assert_eq!(pair.side, *side, "{what}");
                assert_eq!(pair.client.alpn_protocol(), *agreed, "{what}");
                assert_eq!(pair.server.alpn_protocol(), *agreed, "{what}");
                assert_eq!(shown.asked(), usize::from(*side == Side::Backend), "{what}");
                let sni = (name == "localhost").then_some("localhost");
                assert_eq!(pair.server.server_name(), sni, "{what}");
            }
        }
    }
}

/// B2
#[test]
fn only_unknown_labels_end_in_the_fatal_alert() {
    let tls = gateway(&[&Token::generate()]);
    for version in BOTH {
        for offered in [
            &[&b"foo"[..]][..],
            &[b"2PTTH"],
            &[b"2ptth "],
            &[b"h3", b"2ptt"],
        ] {
            let pair = shake(&tls, client(version, offered, Arc::default()), "localhost");
            let alert = AlertDescription::NoApplicationProtocol;
            assert_eq!(
                pair.server_error,
                Some(rustls::Error::NoApplicationProtocol)
            );
            assert_eq!(pair.client_error, Some(rustls::Error::AlertReceived(alert)));
        }
    }
}

/// B2
#[test]
fn the_flag_replaces_the_labels() {
    let token = Token::generate();
    let keys = Admission::Keys {
        keys: vec![token.public()],
        file: None,
        made: None,
    };
    let source = CertificateSource::SelfSigned { names: Vec::new() };
    let mut config = Config::new(source, keys);
    config.backend_alpn = vec![b"own".to_vec()];
    let tls = Tls::new(&config).unwrap();
    let shown = || Arc::new(Shown::token(&token));
    let own = shake(&tls, client(BOTH[1], &[b"own"], shown()), "localhost");
    assert!(own.done() && own.side == Side::Backend);
    let default = shake(&tls, client(BOTH[1], &[alpn::PTTH], shown()), "localhost");
    assert_eq!(
        default.server_error,
        Some(rustls::Error::NoApplicationProtocol)
    );
}

#[test]
fn visitors_resume_and_backends_never_do() {
    let token = Token::generate();
    let tls = gateway(&[&token]);
    for version in BOTH {
        let shown = Arc::new(Shown::token(&token));
        // Both share one store of tickets, as a hostile client could.
        let visitor = client(version, &[alpn::H2], Arc::clone(&shown));
        let mut backend = visitor.clone();
        backend.alpn_protocols = vec![alpn::PTTH.to_vec()];
        let kind = |config: &rustls::ClientConfig| {
            let pair = shake(&tls, config.clone(), "localhost");
            assert!(pair.done());
            pair.server.handshake_kind().unwrap()
        };
        for _ in 0..3 {
            assert_eq!(kind(&backend), HandshakeKind::Full, "{version:?}");
        }
        assert_eq!(shown.asked(), 3);
        assert_eq!(kind(&visitor), HandshakeKind::Full, "{version:?}");
        assert_eq!(kind(&visitor), HandshakeKind::Resumed, "{version:?}");
        assert_eq!(kind(&backend), HandshakeKind::Full, "{version:?}");
        assert_eq!(shown.asked(), 4);
    }
}

#[test]
fn aes_128_is_chosen_whatever_the_client_prefers() {
    let tls = gateway(&[&Token::generate()]);
    let suite = |version| {
        let mut config = client(version, &[alpn::H2], Arc::default());
        let mut provider = (**config.crypto_provider()).clone();
        provider.cipher_suites.reverse();
        let labels = std::mem::take(&mut config.alpn_protocols);
        let mut config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything))
            .with_no_client_auth();
        config.alpn_protocols = labels;
        shake(&tls, config, "localhost")
            .server
            .negotiated_cipher_suite()
            .unwrap()
            .suite()
    };
    assert_eq!(suite(BOTH[1]), CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(
        suite(BOTH[0]),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    );
}

#[test]
fn tls_1_3_is_preferred_and_1_2_still_there() {
    let tls = gateway(&[&Token::generate()]);
    for (version, expected) in BOTH
        .into_iter()
        .zip([ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3])
    {
        let pair = shake(&tls, client(version, NONE, Arc::default()), "localhost");
        assert_eq!(pair.server.protocol_version(), Some(expected));
    }
}

#[test]
fn a_self_signed_certificate_covers_what_it_should() {
    let names = vec![
        "Example.COM".to_owned(),
        "*.example.org".into(),
        "192.0.2.7".into(),
    ];
    let source = CertificateSource::SelfSigned { names };
    let tls = Tls::new(&Config::new(source, Admission::Open)).unwrap();
    let key = Arc::clone(&tls.certificate.get().key);
    let parsed = rustls::server::ParsedCertificate::try_from(&key.cert[0]).unwrap();
    let covers = |name: &str| {
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        rustls::client::verify_server_name(&parsed, &name).is_ok()
    };
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "example.com",
        "a.example.org",
        "192.0.2.7",
    ] {
        assert!(covers(name), "{name}");
    }
    assert!(!covers("example.org") && !covers("192.0.2.8"));
    assert!(tls.pin().starts_with("sha256:") && tls.pin().len() == 7 + 64);
    assert!(!tls.reload().unwrap());
}

/// A certificate and its key in PEM.
fn pem(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["example.com".to_owned()]).unwrap();
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn files(scratch: &Scratch, cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Config {
    let (cert, key) = (
        scratch.write("cert.pem", cert),
        scratch.write("key.pem", key),
    );
    Config::new(CertificateSource::Files { cert, key }, Admission::Open)
}

/// B11
#[test]
fn a_replaced_certificate_is_for_new_handshakes_only() {
    let scratch = Scratch::new();
    let (cert, key) = pem(|_| {});
    let config = files(&scratch, &cert, &key);
    let tls = Tls::new(&config).unwrap();
    let old_pin = tls.pin();
    let shown = || {
        let pair = shake(
            &tls,
            client(BOTH[1], &[alpn::H2], Arc::default()),
            "example.com",
        );
        assert!(pair.done());
        let der = pair.client.peer_certificates().unwrap()[0].clone();
        (crypto::pin_text(&crypto::sha256(&der)), pair)
    };
    let (seen, mut living) = shown();
    assert_eq!(seen, old_pin);
    assert_eq!(tls.reload(), Ok(false));

    let (new_cert, new_key) = pem(|_| {});
    // certbot replaces one file after the other: what lies between isn't used, nor forgotten.
    scratch.write("cert.pem", &new_cert);
    let error = tls.reload().unwrap_err();
    assert!(matches!(error, TlsError::Mismatch { .. }), "{error}");
    assert_eq!(tls.reload(), Err(error));
    assert_eq!(shown().0, old_pin);

    scratch.write("key.pem", &new_key);
    assert_eq!(tls.reload(), Ok(true));
    assert_eq!(tls.reload(), Ok(false));
    assert_ne!(tls.pin(), old_pin);
    assert_eq!(shown().0, tls.pin());

    living.client.writer().write_all(b"still here").unwrap();
    living.settle();
    let mut received = [0; 10];
    living.server.reader().read_exact(&mut received).unwrap();
    assert_eq!(&received, b"still here");
}

/// B11
#[test]
fn a_bad_replacement_is_an_error_and_the_old_one_stays() {
    let scratch = Scratch::new();
    let (cert, key) = pem(|_| {});
    let tls = Tls::new(&files(&scratch, &cert, &key)).unwrap();
    let pin = tls.pin();
    let (expired, expired_key) = pem(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    for (cert, key) in [
        ("", ""),
        (&*expired, &*expired_key),
        (&*cert, &*expired_key),
    ] {
        files(&scratch, cert, key);
        assert!(tls.reload().is_err());
        assert_eq!(tls.pin(), pin);
    }
    fs::remove_file(scratch.0.join("cert.pem")).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Unreadable { .. })));
    assert_eq!(tls.pin(), pin);
    files(&scratch, &cert, &key);
    assert_eq!(tls.reload(), Ok(false));
}

/// B11
#[test]
fn a_withdrawn_key_is_known_at_once_and_a_bad_token_file_changes_nothing() {
    let (scratch, old, new) = (Scratch::new(), Token::generate(), Token::generate());
    let path = scratch.write("tokens", old.reveal());
    let keys = vec![old.public()];
    let tls = with(Admission::Keys {
        keys,
        file: Some(path),
        made: None,
    });
    let enters = |token: &Token| {
        let config = client(BOTH[1], &[alpn::PTTH], Arc::new(Shown::token(token)));
        let pair = shake(&tls, config, "localhost");
        let done = pair.done();
        assert_eq!(done, tls.admits(&Key::Ed25519(token.public())));
        done
    };
    assert_eq!(tls.reload(), Ok(false));
    assert!(enters(&old) && !enters(&new));
    for bad in ["", "# nobody\n", "2ptth_pub_x"] {
        scratch.write("tokens", bad);
        assert!(matches!(tls.reload(), Err(TlsError::Tokens(_))), "{bad:?}");
        assert!(enters(&old));
    }
    scratch.write(
        "tokens",
        format!("{}\r\n{}\r\n", old.public(), new.public()),
    );
    assert_eq!(tls.reload(), Ok(true));
    assert!(enters(&old) && enters(&new));
    scratch.write("tokens", format!("# rotated\n{}", new.public()));
    assert_eq!(tls.reload(), Ok(true));
    assert!(!enters(&old) && enters(&new));
}

/// B11
#[test]
fn certificate_and_tokens_do_not_hinder_each_other() {
    let (scratch, token) = (Scratch::new(), Token::generate());
    let (cert, key) = pem(|_| {});
    let mut config = files(&scratch, &cert, &key);
    let path = scratch.write("tokens", token.reveal());
    let keys = vec![token.public()];
    config.admission = Admission::Keys {
        keys,
        file: Some(path),
        made: None,
    };
    let tls = Tls::new(&config).unwrap();
    let other = Token::generate();
    scratch.write("cert.pem", "");
    scratch.write("tokens", other.reveal());
    assert!(matches!(tls.reload(), Err(TlsError::NoCertificate(_))));
    assert!(tls.admits(&Key::Ed25519(other.public())));
}

/// B11
#[test]
fn a_bad_certificate_refuses_to_start_and_says_why() {
    let (cert, key) = pem(|_| {});
    let (other_cert, other_key) = pem(|_| {});
    let (expired, expired_key) = pem(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let (early, early_key) = pem(|params| params.not_before = rcgen::date_time_ymd(2990, 1, 1));
    let chain = format!("{other_cert}{cert}");
    let cut = &cert[..cert.len() / 2];
    let broken = cert.replacen("MII", "M!I", 1);
    let wrong_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let wrong_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old_locked = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let table: [(&str, &str, &str); 15] = [
        ("", &key, "no certificate"),
        ("hello", &key, "no certificate"),
        (&cert, "", "no private key"),
        (&key, &key, "swap"),
        (&cert, &cert, "swap"),
        (cut, &key, "END line"),
        (&broken, &key, "base64"),
        (wrong_der, &key, "damaged"),
        (&cert, wrong_key, "type that can't be used"),
        (&cert, locked, "encrypted"),
        (&cert, old_locked, "encrypted"),
        (&cert, &other_key, "isn't the key"),
        (&chain, &key, "certificate 2"),
        (&expired, &expired_key, "expired on Jan  1 "),
        (&early, &early_key, "isn't valid before Jan  1 "),
    ];
    for (cert, key, says) in table {
        let scratch = Scratch::new();
        let error = Tls::new(&files(&scratch, cert, key))
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert!(
            error.contains(scratch.0.to_str().unwrap()),
            "names no file: {error}"
        );
        assert!(!error.contains('\n') && !error.contains("AAAA") && !error.contains("M!I"));
    }
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let path = std::path::Path::new("/etc/letsencrypt/live/x/privkey.pem");
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let sentence = certificate::unreadable(path, &denied).to_string();
    assert!(
        sentence.contains("/privkey.pem") && sentence.contains("`--user`"),
        "{sentence}"
    );
    let missing = certificate::read(path, path).err().unwrap();
    assert!(matches!(missing, TlsError::Unreadable { .. }));
}

/// PKCS#8 is in the other tests.
#[test]
fn keys_of_every_kind_are_read() {
    let p256 = KeyPair::generate().unwrap();
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    for (pair, label) in [(&p256, "EC PRIVATE KEY"), (&rsa, "RSA PRIVATE KEY")] {
        // RFC 5208 §5: the third part of PKCS#8 is what SEC1 or PKCS#1 would write.
        let (_, parsed) = der_parser::parse_der(pair.serialized_der()).unwrap();
        let inner = parsed.as_sequence().unwrap()[2].as_slice().unwrap();
        let base64 = STANDARD.encode(inner);
        let key = format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
        let params = CertificateParams::new(vec!["example.com".to_owned()]).unwrap();
        let cert = params.self_signed(pair).unwrap().pem();
        let scratch = Scratch::new();
        let tls =
            Tls::new(&files(&scratch, &cert, &key)).unwrap_or_else(|e| panic!("{label}: {e}"));
        assert!(shake(&tls, client(BOTH[1], NONE, Arc::default()), "example.com").done());
    }
}

#[test]
fn what_is_not_wrong_but_odd_is_a_warning() {
    let (other, _) = pem(|params| {
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "somebody else");
    });
    let (cert, key) = pem(|_| {});
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(3 * 86_400);
    let (expiring, expiring_key) = pem(|params| params.not_after = soon.into());
    let table = [
        (cert.clone(), &key, None),
        (format!("{cert}{cert}"), &key, None),
        (format!("{cert}{other}"), &key, Some("order")),
        (expiring, &expiring_key, Some("expires on")),
    ];
    for (cert, key, says) in table {
        let scratch = Scratch::new();
        let warnings = Tls::new(&files(&scratch, cert, key)).unwrap().warnings();
        assert_eq!(warnings.len(), usize::from(says.is_some()), "{warnings:?}");
        assert!(
            says.is_none_or(|says| warnings[0].contains(says)),
            "{warnings:?}"
        );
    }
}

/// B3
#[test]
fn a_visitor_is_never_asked_for_a_certificate() {
    for admission in [Admission::make(), Admission::Open] {
        let tls = with(admission);
        for version in BOTH {
            for offered in [&[alpn::H2, alpn::HTTP_1_1][..], &[alpn::HTTP_1_1], NONE] {
                let shown = Arc::new(Shown::token(&Token::generate()));
                let pair = shake(
                    &tls,
                    client(version, offered, Arc::clone(&shown)),
                    "localhost",
                );
                assert!(pair.done());
                assert_eq!(shown.asked.load(Ordering::Relaxed), 0);
                assert!(pair.server.peer_certificates().is_none());
            }
        }
    }
}
