//! Backends with a certificate of an authority that the operator named.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use http::Response;
use ptth_link::cli;
use ptth_link::token::Token;
use ptth_server::config::{Args, Config, ConfigError};
use ptth_server::lab::{Identity, Key, Known, Policy, RouteId};
use ptth_test::routes::{Changing, get, until_serving};
use ptth_test::{Folder, Hello, soon};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, RevokedCertParams, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;

type Issuer = CertifiedIssuer<'static, KeyPair>;
type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn authority(name: &str, by: Option<&Issuer>) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    match by {
        Some(by) => CertifiedIssuer::signed_by(params, key, by).unwrap(),
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
    }
}

/// A certificate for these names, after `change`.
fn certificate(
    by: &Issuer,
    names: &[&str],
    algorithm: &'static SignatureAlgorithm,
    change: impl FnOnce(&mut CertificateParams),
) -> Shown {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    // What a company writes there, and no wish for a dynamic name.
    params.distinguished_name.push(DnType::OrganizationalUnitName, "engineering");
    params.serial_number = Some(SerialNumber::from(7));
    change(&mut params);
    let key = KeyPair::generate_for(algorithm).unwrap();
    let shown = params.signed_by(&key, by).unwrap().into();
    (vec![shown], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn good(by: &Issuer, names: &[&str]) -> Shown {
    certificate(by, names, &PKCS_ED25519, |_| {})
}

fn revocations(by: &Issuer, serial: Option<u64>) -> String {
    let revoked = |serial: u64| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2999, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serial.map(revoked).into_iter().collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(by).unwrap().pem().unwrap()
}

/// Routes of these hosts, each with the credential of the file `routes.toml` that stands beside the host.
fn config(folder: &Folder, routes: &[(&str, &str)]) -> Config {
    let tables = routes.iter().enumerate().map(|(index, (host, allow))| {
        format!("[[route]]\nname = '{index}'\nhosts = ['{host}']\n[[route.allow]]\n{allow}\n")
    });
    let names =
        "[names]\ndomain = 'n.test'\n[[names.allow]]\ncredential = { client_ca = 'ca.pem' }\n";
    let file = folder.write("routes.toml", tables.collect::<String>() + names);
    load(&file).expect("a configuration")
}

fn load(file: &Path) -> Result<Config, ConfigError> {
    let args = ["--self-signed", "--config", file.to_str().expect("UTF-8")].map(str::to_owned);
    let args =
        cli::parse::<Args>("2ptth-server", args).unwrap_or_else(|exit| panic!("{}", exit.output));
    Config::load(&args, &|_| None)
}

fn policy(config: &Config) -> Policy {
    Policy::new(config, &Arc::new(Known::default()), 1, None)
}

async fn granted(policy: &Policy, (chain, _): &Shown) -> Vec<String> {
    let identity = Identity {
        key: Some(Key::of(&chain[0]).unwrap()),
        chain: chain.clone().into(),
        wish: Some("engineering".to_owned()),
        ..Identity::called("b.0")
    };
    let grants = policy.admit(&identity, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
    let grants = grants.unwrap_or_default();
    grants
        .iter()
        .map(|grant| match grant.route() {
            RouteId::Host(host, _) => host.to_string(),
            RouteId::Name(name) => name.clone(),
        })
        .collect()
}

/// The names are those of the certificate, of which a route, or the domain of names, has some.
#[tokio::test]
async fn a_certificate_is_good_for_its_names_and_for_nothing_else() {
    let (folder, ours) = (Folder::new(), authority("ours", None));
    folder.write("ca.pem", ours.pem());
    let ca = "client_ca = 'ca.pem'";
    let pinned = Token::generate();
    let other = format!("key = '{}'", pinned.public());
    let config = config(&folder, &[("a.test", ca), ("*.b.test", ca), ("c.b.test", &other)]);
    let policy = policy(&config);
    for (names, expected) in [
        (&["a.test"][..], &["a.test"][..]),
        (&["A.TEST", "x.b.test"], &["a.test", "x.b.test"]),
        (&["*.b.test"], &["*.b.test"]),
        // Another route has it, whose backends are others.
        (&["c.b.test"], &[]),
        (&["b.test", "y.a.test", "*.test", "*"], &[]),
        (&["bob.n.test", "x.y.n.test", "*.n.test"], &["bob"]),
        (&[], &[]),
    ] {
        assert_eq!(granted(&policy, &good(&ours, names)).await, expected, "{names:?}");
    }
}

#[tokio::test]
async fn a_chain_must_hold_now_and_be_for_clients() {
    let folder = Folder::new();
    let (ours, theirs) = (authority("ours", None), authority("theirs", None));
    let between = authority("between", Some(&ours));
    folder.write("ca.pem", ours.pem());
    let lists = [revocations(&ours, None), revocations(&between, Some(7))].concat();
    folder.write("crl.pem", &lists);
    let plain = policy(&config(&folder, &[("a.test", "client_ca = 'ca.pem'")]));
    let listed = "client_ca = 'ca.pem'\nclient_crl = 'crl.pem'";
    let listed = policy(&config(&folder, &[("a.test", listed)]));
    // Without the list of the authority between, and with lists that are none of theirs.
    folder.write("own.pem", revocations(&ours, None));
    let own = "client_ca = 'ca.pem'\nclient_crl = 'own.pem'";
    let own = policy(&config(&folder, &[("a.test", own)]));
    folder.write("foreign.pem", revocations(&theirs, None));
    let foreign = "client_ca = 'ca.pem'\nclient_crl = 'foreign.pem'";
    let foreign = policy(&config(&folder, &[("a.test", foreign)]));
    let through = |serial: u64| {
        let by = |params: &mut CertificateParams| {
            params.serial_number = Some(SerialNumber::from(serial))
        };
        let (mut chain, key) = certificate(&between, &["a.test"], &PKCS_ED25519, by);
        chain.push(between.der().clone());
        (chain, key)
    };
    let with =
        |change: fn(&mut CertificateParams)| certificate(&ours, &["a.test"], &PKCS_ED25519, change);
    let (missing, key) = through(8);
    let missing = (missing[..1].to_vec(), key);
    for (what, shown, fine) in [
        ("Ed25519", good(&ours, &["a.test"]), [true, true]),
        ("ECDSA", certificate(&ours, &["a.test"], &PKCS_ECDSA_P384_SHA384, |_| {}), [true, true]),
        ("another authority", good(&theirs, &["a.test"]), [false, false]),
        ("expired", with(|it| it.not_after = date_time_ymd(2020, 1, 1)), [false, false]),
        ("not yet", with(|it| it.not_before = date_time_ymd(2999, 1, 1)), [false, false]),
        (
            "for servers",
            with(|it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            [false, false],
        ),
        ("through another", through(8), [true, true]),
        ("without the one between", missing, [false, false]),
        ("revoked", through(7), [true, false]),
    ] {
        for (policy, fine) in [&plain, &listed].into_iter().zip(fine) {
            assert_eq!(!granted(policy, &shown).await.is_empty(), fine, "{what}");
        }
    }
    // Whether it was revoked isn't known then.
    for (policy, shown, fine) in [
        (&own, good(&ours, &["a.test"]), true),
        (&own, through(8), false),
        (&foreign, good(&ours, &["a.test"]), false),
    ] {
        assert_eq!(!granted(policy, &shown).await.is_empty(), fine);
    }
}

/// From the handshake to the visitor, beside a pinned key; and a list that names it ends its tunnel.
#[tokio::test]
async fn a_backend_with_a_certificate_serves_until_it_is_revoked() {
    let (folder, ours) = (Folder::new(), authority("ours", None));
    folder.write("ca.pem", ours.pem());
    folder.write("crl.pem", revocations(&ours, None));
    let allow = "client_ca = 'ca.pem'\nclient_crl = 'crl.pem'";
    let loaded = config(&folder, &[("a.test", allow), ("z.test", allow)]);
    let mut changing = Changing::start(|config| config.routes = loaded.routes);
    let gateway = &changing.gateway;
    let (chain, private) = good(&ours, &["a.test"]);
    let hello = Hello::offering(&[b"2ptth"]).showing(chain, private);
    let stream = soon("a handshake", hello.connect(gateway.address)).await.unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut requests = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = requests.accept().await {
            respond.send_response(Response::new(()), true).unwrap();
        }
    });
    until_serving(gateway, "a.test", 1).await;
    assert_eq!(get(gateway, "a.test", "/").await.0, 200);
    assert_eq!(get(gateway, "z.test", "/").await.0, 502);
    let stranger = authority("theirs", None);
    let (chain, private) = good(&stranger, &["a.test"]);
    let stream =
        Hello::offering(&[b"2ptth"]).showing(chain, private).connect(gateway.address).await;
    let refused = match stream {
        Ok(mut stream) => tokio::io::AsyncReadExt::read_u8(&mut stream).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "a stranger's certificate came in");

    // A route gets another host, of which the certificate says nothing.
    let mut wider = config(&folder, &[("a.test", allow), ("z.test", allow)]);
    let hosts = &mut wider.routes.first_mut().unwrap().hosts;
    hosts.push("more.a.test".parse().unwrap());
    changing.change(|config| config.routes = wider.routes).await;
    assert_eq!(get(&changing.gateway, "a.test", "/").await.0, 200);
    assert_eq!(get(&changing.gateway, "more.a.test", "/").await.0, 502);

    folder.write("crl.pem", revocations(&ours, Some(7)));
    let listed = config(&folder, &[("a.test", allow), ("z.test", allow)]);
    changing.change(|config| config.routes = listed.routes).await;
    soon("the end of the tunnel", serving.join_next()).await;
    assert_eq!(get(&changing.gateway, "a.test", "/").await.0, 502);
}

fn mistake(folder: &Folder, allow: &str) -> String {
    let text = format!("[[route]]\nhosts = ['a.test']\n[[route.allow]]\n{allow}\n");
    let file = folder.write("routes.toml", text);
    load(&file).expect_err("a mistake").to_string()
}

#[test]
fn mistakes_of_an_authority_are_told_with_their_place() {
    let (folder, ours) = (Folder::new(), authority("ours", None));
    folder.write("ca.pem", ours.pem());
    folder.write("none.pem", "nothing");
    for (allow, expected) in [
        ("client_ca = 'gone.pem'", ":4:13: gone.pem can't be read"),
        ("client_ca = 'none.pem'", ":4:13: none.pem holds no certificate"),
        ("client_ca = 'ca.pem'\nclient_crl = 'ca.pem'", "holds no revocation list"),
        ("client_crl = 'crl.pem'", "a credential is a table with one kind"),
        (
            "bearer_file = 'x'\nclient_crl = 'crl.pem'",
            "`client_crl` stands beside `client_ca` alone",
        ),
        ("client_ca = 5", ":4:13: "),
    ] {
        let said = mistake(&folder, allow);
        assert!(said.contains(expected), "{allow}: {said}");
    }
}
