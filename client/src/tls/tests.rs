//! How the gateway is known, over handshakes in memory, and what its certificate covers.

use std::ops::DerefMut;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::ClientConnection;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ConnectionCommon, ServerConfig, ServerConnection, SideData,
    SupportedProtocolVersion,
};

use ptth_link::alpn;
use ptth_link::token::{PublicKey, Token};

use super::testing::*;
use super::*;
use crate::config::Gateway;

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

fn connector(config: &Config, common_name: &str) -> Result<Arc<ClientConfig>, TlsError> {
    tunnel(config, verifier(&config.trust)?, common_name)
}

fn config(trust: Trust) -> Config {
    let mut config = Config::new(Gateway::parse("gateway.example").unwrap());
    config.trust = trust;
    config
}

/// A certificate for these names, and its key.
fn certificate(names: &[&str]) -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (certificate.into(), key)
}

fn gateway(
    version: &'static SupportedProtocolVersion,
    chain: &[&CertificateDer<'static>],
    key: &KeyPair,
    labels: &[&[u8]],
) -> ServerConfig {
    let key = PrivateKeyDer::Pkcs8(key.serialized_der().to_vec().into());
    let key = crypto::provider().key_provider.load_private_key(key).unwrap();
    let shown = CertifiedKey::new(chain.iter().map(|der| (*der).clone()).collect(), key);
    let mut config = ServerConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(Arc::new(AnyClient(Verifier::Any)))
        .with_cert_resolver(Arc::new(Always(Arc::new(shown))));
    config.alpn_protocols = labels.iter().map(|label| label.to_vec()).collect();
    config
}

/// Both ends, and the client's error if it came to that.
type Ends = (Option<rustls::Error>, ClientConnection, ServerConnection);

fn shake(config: &Config, server: ServerConfig) -> Ends {
    let tls = connector(config, "laptop-x7.0").unwrap();
    let mut client = ClientConnection::new(tls, server_name(config).unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut error = None;
    loop {
        let there = carry(&mut client, &mut server, &mut None);
        let back = carry(&mut server, &mut client, &mut error);
        if !there && !back {
            return (error, client, server);
        }
    }
}

fn carry<A: SideData, B: SideData>(
    from: &mut impl DerefMut<Target = ConnectionCommon<A>>,
    to: &mut impl DerefMut<Target = ConnectionCommon<B>>,
    error: &mut Option<rustls::Error>,
) -> bool {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() && error.is_none() {
        to.read_tls(&mut rest).unwrap();
        *error = to.process_new_packets().err();
    }
    !wire.is_empty()
}

fn error(trust: &Trust, server: ServerConfig) -> Option<rustls::Error> {
    shake(&config(trust.clone()), server).0
}

fn pin(der: &CertificateDer<'_>) -> Trust {
    Trust::Pin(crypto::sha256(der))
}

const LABELS: &[&[u8]] = &[alpn::PTTH];

#[test]
fn a_pin_knows_one_certificate_whatever_its_name_and_dates() {
    let (other_name, key) = certificate(&["somebody.else"]);
    let params = |year| {
        let mut params = CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        CertificateDer::from(params.self_signed(&key).unwrap())
    };
    let (expired, valid) = (params(2020), params(3020));
    for version in BOTH {
        for shown in [&other_name, &expired, &valid] {
            let server = gateway(version, &[shown], &key, LABELS);
            assert_eq!(error(&pin(shown), server), None);
        }
        // The same key is not enough, and neither is the certificate somewhere in the chain.
        for chain in [&[&valid][..], &[&valid, &other_name]] {
            let server = gateway(version, chain, &key, LABELS);
            let Some(rustls::Error::InvalidCertificate(CertificateError::Other(why))) =
                error(&pin(&other_name), server)
            else {
                panic!("not refused by the pin");
            };
            let [seen, wanted] =
                [&valid, &other_name].map(|it| crypto::pin_text(&crypto::sha256(it)));
            let told = format!("the gateway's certificate has the pin {seen}, not {wanted}");
            assert_eq!(why.0.to_string(), told);
        }
    }
}

#[test]
fn a_certificate_without_its_key_is_refused_in_every_case() {
    let (shown, _) = certificate(&["gateway.example"]);
    let (_, thief) = certificate(&["gateway.example"]);
    let file = Pem::new(&[&shown]);
    for version in BOTH {
        for trust in [pin(&shown), Trust::Insecure, Trust::Ca(file.0.clone())] {
            let refused = error(&trust, gateway(version, &[&shown], &thief, LABELS));
            let expected = rustls::Error::InvalidCertificate(CertificateError::BadSignature);
            assert_eq!(refused, Some(expected), "{trust:?}");
        }
    }
}

#[test]
fn a_file_of_authorities_wants_the_name_too() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer_key = KeyPair::generate().unwrap();
    let authority = CertificateDer::from(params.self_signed(&issuer_key).unwrap());
    let issuer = Issuer::new(params, issuer_key);
    let key = KeyPair::generate().unwrap();
    let issued = |name: &str| {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        CertificateDer::from(params.signed_by(&key, &issuer).unwrap())
    };
    let (good, other) = (issued("gateway.example"), issued("somebody.else"));
    let (unrelated, _) = certificate(&["gateway.example"]);
    let file = Pem::new(&[&unrelated, &authority]);
    let wrong_file = Pem::new(&[&unrelated]);
    for version in BOTH {
        let show = |shown| gateway(version, &[shown], &key, LABELS);
        let by = |file: &Pem| Trust::Ca(file.0.clone());
        assert_eq!(error(&by(&file), show(&good)), None);
        assert!(error(&by(&file), show(&other)).is_some());
        assert!(error(&by(&wrong_file), show(&good)).is_some());
        assert!(error(&Trust::System, show(&good)).is_some());
        assert_eq!(error(&Trust::Insecure, show(&other)), None);
    }
}

/// As `openssl req -x509` makes it, which marks it as an authority, or as we do.
#[test]
fn a_file_may_hold_the_gateways_certificate_itself() {
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let key = KeyPair::generate().unwrap();
        let own = |name: &str, year| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            params.is_ca = is_ca;
            CertificateDer::from(params.self_signed(&key).unwrap())
        };
        let (good, other) = (own("gateway.example", 3000), own("somebody.else", 3000));
        let expired = own("gateway.example", 2020);
        let file = Pem::new(&[&good, &other, &expired]);
        for version in BOTH {
            let seen =
                |shown| error(&Trust::Ca(file.0.clone()), gateway(version, &[shown], &key, LABELS));
            assert_eq!(seen(&good), None, "{is_ca:?}");
            assert!(seen(&other).is_some(), "{is_ca:?}");
            assert!(seen(&expired).is_some(), "{is_ca:?}");
        }
    }
}

#[test]
fn bad_files_of_authorities_are_named() {
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (contents, part) in [("", "no certificate"), (cut, "PEM"), (garbage, "bad certificate")] {
        let file = Pem::with(contents);
        let sentence = connector(&config(Trust::Ca(file.0.clone())), "x").unwrap_err().to_string();
        assert!(sentence.contains(part), "{sentence}");
        assert!(sentence.contains(file.0.to_str().unwrap()), "{sentence}");
    }
    let missing =
        connector(&config(Trust::Ca("/nonexistent".into())), "x").unwrap_err().to_string();
    assert!(missing.contains("/nonexistent can't be read"), "{missing}");
}

#[test]
fn the_gateway_sees_the_token_the_name_and_the_label() {
    let (shown, key) = certificate(&["gateway.example"]);
    let mut config = config(pin(&shown));
    config.host = "www.example".to_owned();
    config.token = Some(Token::generate());
    config.alpn = alpn::POTATO_02.to_vec();
    for version in BOTH {
        let server = gateway(version, &[&shown], &key, &alpn::BACKEND_LABELS);
        let (error, client, server) = shake(&config, server);
        assert_eq!(error, None);
        assert_eq!(server.server_name(), Some("www.example"));
        assert_eq!(client.alpn_protocol(), Some(alpn::POTATO_02));
        let seen = ParsedCertificate::try_from(&server.peer_certificates().unwrap()[0]).unwrap();
        let seen = PublicKey::from_spki(&seen.subject_public_key_info());
        assert_eq!(seen, config.token.as_ref().map(Token::public));
    }
}

#[test]
fn without_a_token_all_tunnels_of_a_configuration_show_one_key() {
    let (shown, key) = certificate(&["gateway.example"]);
    let seen = |config: &Config| {
        let (error, _, server) = shake(config, gateway(BOTH[1], &[&shown], &key, LABELS));
        assert_eq!(error, None);
        let seen = ParsedCertificate::try_from(&server.peer_certificates().unwrap()[0]).unwrap();
        PublicKey::from_spki(&seen.subject_public_key_info()).unwrap()
    };
    let (one, other) = (config(pin(&shown)), config(pin(&shown)));
    assert_eq!(seen(&one), seen(&one.clone()));
    assert_ne!(seen(&one), seen(&other));
}

#[test]
fn a_gateway_that_knows_other_labels_only_ends_the_handshake() {
    let (shown, key) = certificate(&["gateway.example"]);
    for version in BOTH {
        let refused = error(&pin(&shown), gateway(version, &[&shown], &key, &[alpn::H2]));
        let alert = AlertDescription::NoApplicationProtocol;
        assert_eq!(refused, Some(rustls::Error::AlertReceived(alert)));
    }
}

#[test]
fn an_address_is_a_name_without_sni() {
    let (shown, key) = certificate(&["192.0.2.1", "2001:db8::1"]);
    let file = Pem::new(&[&shown]);
    for text in ["192.0.2.1", "[2001:db8::1]:8443"] {
        let mut config = Config::new(Gateway::parse(text).unwrap());
        config.trust = Trust::Ca(file.0.clone());
        let (error, _, server) = shake(&config, gateway(BOTH[1], &[&shown], &key, LABELS));
        assert_eq!(error, None, "{text}");
        assert_eq!(server.server_name(), None);
    }
}

#[test]
fn the_system_or_the_bundle_has_roots() {
    let bundled = webpki_roots::TLS_SERVER_ROOTS.len();
    let (own, _) = certificate(&["authority.example"]);
    let unreadable = CertificateDer::from(vec![0x30]);
    assert_eq!(or_bundled(vec![own, unreadable.clone()]).len(), 1);
    assert_eq!(or_bundled(vec![unreadable]).len(), bundled);
    assert_eq!(or_bundled(Vec::new()).len(), bundled);
    assert!(system_roots().len() > 10);
    assert!(connector(&config(Trust::System), "x").is_ok());
}

#[test]
fn covers_looks_at_the_host_alone() {
    let names = ["example.com", "*.apps.example.com", "192.0.2.1", "2001:db8::1"];
    let (certificate, _) = certificate(&names);
    let covered = [
        "example.com",
        "example.com:",
        "example.com:443",
        "example.com:8443",
        "EXAMPLE.com",
        "example.com.",
        "example.com.:443",
        "a.apps.example.com",
        "192.0.2.1",
        "192.0.2.1:443",
        "[2001:db8::1]",
        "[2001:DB8::1]:443",
    ];
    for host in covered {
        assert!(covers(&certificate, host), "{host}");
    }
    let foreign = [
        "",
        ":443",
        ".",
        "www.example.com",
        "apps.example.com",
        "a.b.apps.example.com",
        "example.com.evil.net",
        "evil.net:example.com",
        "example.com:evil.net",
        "example.com:443:443",
        "user@example.com",
        "example.com/",
        " example.com",
        "example.com..",
        "192.0.2.2",
        "[192.0.2.1]",
        "[2001:db8::2]",
        "[2001:db8::1",
        "2001:db8::1",
        "[2001:db8::1]x",
        "[]",
    ];
    for host in foreign {
        assert!(!covers(&certificate, host), "{host}");
    }
    assert!(!covers(&CertificateDer::from(vec![0x30]), "example.com"));
}
