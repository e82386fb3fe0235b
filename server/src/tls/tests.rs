//! Which configuration a ClientHello gets, and what it then offers.

use std::sync::Arc;

use rustls::{AlertDescription, CipherSuite, HandshakeKind, ProtocolVersion};

use ptth_link::token::Token;

use super::testing::*;
use super::*;
use crate::config::CertificateSource;

const NONE: &[&[u8]] = &[];

#[test]
fn the_label_decides_the_side_and_the_protocol() {
    let token = Token::generate();
    let tls = gateway(&[&token]);
    type Row<'a> = (Vec<&'a [u8]>, Side, Option<&'a [u8]>);
    let mut table: Vec<Row<'_>> = vec![
        (vec![alpn::H2, alpn::HTTP_1_1], Side::Visitor, Some(alpn::H2)),
        (vec![alpn::HTTP_1_1, alpn::H2], Side::Visitor, Some(alpn::H2)),
        (vec![alpn::HTTP_1_1], Side::Visitor, Some(alpn::HTTP_1_1)),
        (vec![b"foo", alpn::HTTP_1_1], Side::Visitor, Some(alpn::HTTP_1_1)),
        (vec![], Side::Visitor, None),
        (vec![alpn::PTTH, alpn::H2], Side::Backend, Some(alpn::PTTH)),
        (vec![alpn::H2, alpn::PTTH], Side::Backend, Some(alpn::PTTH)),
        (vec![alpn::POTATO_00, alpn::POTATO_02], Side::Backend, Some(alpn::POTATO_02)),
    ];
    table.extend(alpn::BACKEND_LABELS.map(|label| (vec![label], Side::Backend, Some(label))));
    for version in BOTH {
        // An address is never sent as SNI.
        for name in ["localhost", "192.0.2.1"] {
            for (offered, side, agreed) in &table {
                let shown = Arc::new(Shown::token(&token));
                let pair = shake(&tls, client(version, offered, Arc::clone(&shown)), name);
                let what = format!("{version:?} {name} {offered:?}");
                assert!(pair.done(), "{what}: {:?} {:?}", pair.client_error, pair.server_error);
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

#[test]
fn only_unknown_labels_end_in_the_fatal_alert() {
    let tls = gateway(&[&Token::generate()]);
    for version in BOTH {
        for offered in [&[&b"foo"[..]][..], &[b"2PTTH"], &[b"2ptth "], &[b"h3", b"2ptt"]] {
            let pair = shake(&tls, client(version, offered, Arc::default()), "localhost");
            let alert = AlertDescription::NoApplicationProtocol;
            assert_eq!(pair.server_error, Some(rustls::Error::NoApplicationProtocol));
            assert_eq!(pair.client_error, Some(rustls::Error::AlertReceived(alert)));
        }
    }
}

#[test]
fn the_flag_replaces_the_labels() {
    let token = Token::generate();
    let keys = Admission::Keys { keys: vec![token.public()], file: None, made: None };
    let source = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
    let mut config = Config::new(source, keys);
    config.backend_alpn = vec![b"own".to_vec()];
    let tls = Tls::new(&config).unwrap();
    let shown = || Arc::new(Shown::token(&token));
    let own = shake(&tls, client(BOTH[1], &[b"own"], shown()), "localhost");
    assert!(own.done() && own.side == Side::Backend);
    let default = shake(&tls, client(BOTH[1], &[alpn::PTTH], shown()), "localhost");
    assert_eq!(default.server_error, Some(rustls::Error::NoApplicationProtocol));
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
        shake(&tls, config, "localhost").server.negotiated_cipher_suite().unwrap().suite()
    };
    assert_eq!(suite(BOTH[1]), CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(suite(BOTH[0]), CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
}

#[test]
fn tls_1_3_is_preferred_and_1_2_still_there() {
    let tls = gateway(&[&Token::generate()]);
    for (version, expected) in
        BOTH.into_iter().zip([ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3])
    {
        let pair = shake(&tls, client(version, NONE, Arc::default()), "localhost");
        assert_eq!(pair.server.protocol_version(), Some(expected));
    }
}

#[test]
fn a_visitor_is_never_asked_for_a_certificate() {
    for admission in [Admission::make(), Admission::Open] {
        let tls = with(admission);
        for version in BOTH {
            for offered in [&[alpn::H2, alpn::HTTP_1_1][..], &[alpn::HTTP_1_1], NONE] {
                let shown = Arc::new(Shown::token(&Token::generate()));
                let pair = shake(&tls, client(version, offered, Arc::clone(&shown)), "localhost");
                assert!(pair.done());
                assert_eq!(shown.asked(), 0);
                assert!(pair.server.peer_certificates().is_none());
            }
        }
    }
}
