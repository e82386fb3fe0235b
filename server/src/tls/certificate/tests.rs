//! Certificates on disk: what refuses to start, and what happens when they change.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::PKCS_RSA_SHA256;
use x509_parser::der_parser;

use ptth_link::alpn;
use ptth_link::token::Token;

use super::*;
use crate::auth::Admits;
use crate::config::{Admission, CertificateSource, Config};
use crate::identity::Key;
use crate::tls::Tls;
use crate::tls::testing::*;

#[test]
fn a_self_signed_certificate_covers_what_it_should() {
    let names = vec!["Example.COM".to_owned(), "*.example.org".into(), "192.0.2.7".into()];
    let source = CertificateSource::SelfSigned { names, kept: None };
    let tls = Tls::new(&Config::new(source, Admission::Open)).unwrap();
    let key = tls.certificates.first().unwrap().key.clone();
    let parsed = rustls::server::ParsedCertificate::try_from(&key.cert[0]).unwrap();
    let covers = |name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        rustls::client::verify_server_name(&parsed, &name).is_ok()
    };
    for name in ["localhost", "127.0.0.1", "::1", "example.com", "a.example.org", "192.0.2.7"] {
        assert!(covers(name), "{name}");
    }
    assert!(!covers("example.org") && !covers("192.0.2.8"));
    let pin = tls.pin().unwrap();
    assert!(pin.starts_with("sha256:") && pin.len() == 7 + 64);
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
    let (cert, key) = (scratch.write("cert.pem", cert), scratch.write("key.pem", key));
    Config::new(CertificateSource::Files { cert, key }, Admission::Open)
}

#[test]
fn a_replaced_certificate_is_for_new_handshakes_only() {
    let scratch = Scratch::new();
    let (cert, key) = pem(|_| {});
    let config = files(&scratch, &cert, &key);
    let tls = Tls::new(&config).unwrap();
    let old_pin = tls.pin();
    let shown = || {
        let pair = shake(&tls, client(BOTH[1], &[alpn::H2], Arc::default()), "example.com");
        assert!(pair.done());
        let der = pair.client.peer_certificates().unwrap()[0].clone();
        (crypto::pin_text(&crypto::sha256(&der)), pair)
    };
    let (seen, mut living) = shown();
    assert_eq!(Some(seen), old_pin);
    assert_eq!(tls.reload(), Ok(false));

    let (new_cert, new_key) = pem(|_| {});
    // certbot replaces one file after the other: what lies between isn't used, nor forgotten.
    scratch.write("cert.pem", &new_cert);
    let error = tls.reload().unwrap_err();
    assert!(error.to_string().contains("isn't the key"), "{error}");
    assert_eq!(tls.reload(), Err(error));
    assert_eq!(Some(shown().0), old_pin);

    scratch.write("key.pem", &new_key);
    assert_eq!(tls.reload(), Ok(true));
    assert_eq!(tls.reload(), Ok(false));
    assert_ne!(tls.pin(), old_pin);
    assert_eq!(Some(shown().0), tls.pin());

    living.client.writer().write_all(b"still here").unwrap();
    living.settle();
    let mut received = [0; 10];
    living.server.reader().read_exact(&mut received).unwrap();
    assert_eq!(&received, b"still here");
}

#[test]
fn a_bad_replacement_is_an_error_and_the_old_one_stays() {
    let scratch = Scratch::new();
    let (cert, key) = pem(|_| {});
    let tls = Tls::new(&files(&scratch, &cert, &key)).unwrap();
    let pin = tls.pin();
    let (expired, expired_key) = pem(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    for (cert, key) in [("", ""), (&*expired, &*expired_key), (&*cert, &*expired_key)] {
        files(&scratch, cert, key);
        assert!(tls.reload().is_err());
        assert_eq!(tls.pin(), pin);
    }
    fs::remove_file(scratch.0.join("cert.pem")).unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("/cert.pem can't be read"));
    assert_eq!(tls.pin(), pin);
    files(&scratch, &cert, &key);
    assert_eq!(tls.reload(), Ok(false));
}

#[test]
fn a_withdrawn_key_is_known_at_once_and_a_bad_token_file_changes_nothing() {
    let (scratch, old, new) = (Scratch::new(), Token::generate(), Token::generate());
    let path = scratch.write("tokens", old.reveal());
    let keys = vec![old.public()];
    let tls = with(Admission::Keys { keys, file: Some(path), made: None });
    let enters = |token: &Token| {
        let config = client(BOTH[1], &[alpn::PTTH], Arc::new(Shown::token(token)));
        let pair = shake(&tls, config, "localhost");
        let done = pair.done();
        assert_eq!(done, tls.known.names(&Key::Ed25519(token.public())));
        done
    };
    assert_eq!(tls.reload(), Ok(false));
    assert!(enters(&old) && !enters(&new));
    for bad in ["", "# nobody\n", "2ptth_pub_x"] {
        scratch.write("tokens", bad);
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.starts_with("the token file "), "{bad:?}: {error}");
        assert!(enters(&old));
    }
    scratch.write("tokens", format!("{}\r\n{}\r\n", old.public(), new.public()));
    assert_eq!(tls.reload(), Ok(true));
    assert!(enters(&old) && enters(&new));
    scratch.write("tokens", format!("# rotated\n{}", new.public()));
    assert_eq!(tls.reload(), Ok(true));
    assert!(!enters(&old) && enters(&new));
}

#[test]
fn certificate_and_tokens_do_not_hinder_each_other() {
    let (scratch, token) = (Scratch::new(), Token::generate());
    let (cert, key) = pem(|_| {});
    let mut config = files(&scratch, &cert, &key);
    let path = scratch.write("tokens", token.reveal());
    let keys = vec![token.public()];
    config.admission = Admission::Keys { keys, file: Some(path), made: None };
    let tls = Tls::new(&config).unwrap();
    let other = Token::generate();
    scratch.write("cert.pem", "");
    scratch.write("tokens", other.reveal());
    assert!(tls.reload().unwrap_err().to_string().contains("holds no certificate"));
    assert!(tls.known.names(&Key::Ed25519(other.public())));
}

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
        let error = Tls::new(&files(&scratch, cert, key)).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert!(error.contains(scratch.0.to_str().unwrap()), "names no file: {error}");
        assert!(!error.contains('\n') && !error.contains("AAAA") && !error.contains("M!I"));
    }
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
        assert!(shake(&tls, client(BOTH[1], &[], Arc::default()), "example.com").done());
    }
}

#[test]
fn what_is_not_wrong_but_odd_is_a_warning() {
    let (other, _) = pem(|params| {
        params.distinguished_name.push(DnType::CommonName, "somebody else");
    });
    let (cert, key) = pem(|_| {});
    let soon = SystemTime::now() + Duration::from_secs(13 * 86_400);
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
        assert!(says.is_none_or(|says| warnings[0].contains(says)), "{warnings:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_private_key_that_others_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let (cert, key) = pem(|_| {});
    let config = files(&scratch, cert, &key);
    let CertificateSource::Files { key, .. } = &config.certificates[0] else { panic!("files") };
    for (mode, warned) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
        fs::set_permissions(key, fs::Permissions::from_mode(mode)).unwrap();
        let warnings = Tls::new(&config).unwrap().warnings();
        assert_eq!(warnings.len(), warned, "{mode:o}: {warnings:?}");
        assert!(warnings.iter().all(|it| it.contains("chmod 600")), "{warnings:?}");
    }
}

/// Which source serves what, by `choose`'s rules, and what is said about overlaps.
#[test]
fn names_choose_certificates_and_overlaps_are_told() {
    let scratch = [Scratch::new(), Scratch::new(), Scratch::new()];
    let names: [&[&str]; 3] =
        [&["a.example"], &["*.example", "a.example", "192.0.2.7", "2001:db8::7"], &[]];
    let sources: Vec<_> = scratch
        .iter()
        .zip(names)
        .map(|(scratch, names)| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let (cert, key) =
                pem(|params| params.subject_alt_names = alternative_names(names.clone()));
            let (cert, key) = (scratch.write("cert.pem", cert), scratch.write("key.pem", key));
            CertificateSource::Files { cert, key }
        })
        .collect();
    let mut config = Config::new(sources[0].clone(), Admission::Open);
    config.certificates = sources;
    let tls = Tls::new(&config).unwrap();
    let same = |sni, host| tls.certificates.is_same(Some(sni), host);
    assert!(same("a.example", "A.Example.:443") && same("a.example", "else.test"));
    assert!(same("b.example", "192.0.2.7:80") && same("b.example", "[2001:DB8::7]:443"));
    assert!(!same("a.example", "b.example") && !same("b.example", "x.b.example"));
    assert!(!same("b.example", "192.0.2.8") && !same("b.example", "") && same("x", ""));
    assert!(tls.certificates.is_same(None, "b.example"));
    let warnings = tls.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("a.example is in the certificate "), "{warnings:?}");
    assert!(warnings[1].contains("is for no name"), "{warnings:?}");
}

fn alternative_names(names: Vec<String>) -> Vec<rcgen::SanType> {
    CertificateParams::new(names).unwrap().subject_alt_names
}

/// Behind a proxy that ends TLS there is none, and every handshake fails.
#[test]
fn without_a_certificate_there_is_no_pin() {
    let mut config = Config::new(
        CertificateSource::SelfSigned { names: Vec::new(), kept: None },
        Admission::Open,
    );
    config.certificates.clear();
    let tls = Tls::new(&config).unwrap();
    assert_eq!((tls.pin(), tls.first_name(), tls.is_self_signed()), (None, None, false));
    assert_eq!(tls.reload(), Ok(false));
    let pair = shake(&tls, client(BOTH[1], &[alpn::H2], Arc::default()), "example.com");
    assert!(!pair.done() && pair.client_error.is_some());
}
