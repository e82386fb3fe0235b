//! For which names certificates are ordered, from where, and what is said about wrong settings of that.

use std::net::Ipv4Addr;

use ptth_link::settings::ConfigError;

use super::*;
use crate::router::HostPattern;

/// Reads a file of that text, with a folder for the state.
fn load(text: &str, line: &str) -> Result<Config, ConfigError> {
    let folder = Scratch::new();
    let path = folder.write("2ptth.toml", text);
    folder.write("secret", "s3cret-of-somebody");
    folder.write("ca.pem", "no certificate");
    read(&format!("--config {} {line}", path.display()), &[("TOKEN", KEY)])
}

fn ordered(config: &Config) -> Vec<(&str, &Issuer)> {
    let ordered = config.certificates.iter().filter_map(|source| match source {
        CertificateSource::Acme { name, issuer } => Some((name.as_str(), &**issuer)),
        _ => None,
    });
    ordered.collect()
}

#[test]
fn names_are_given_or_are_the_exact_hosts_of_all_routes() {
    let routes = "[[route]]\nhosts = ['b.test', '*.b.test', '192.0.2.1', '[::1]']\n\
        [[route]]\nhosts = ['A.test']\npath = '/x'\n[[route]]\nhosts = ['a.test']\n\
        [names]\npath_hosts = ['p.test']\nbearer_file = 'secret'\n";
    for (line, names) in [
        ("--acme z.test --acme A.test. --acme z.test", &["z.test", "a.test"][..]),
        ("--acme auto", &["b.test", "a.test", "p.test"]),
        ("--acme z.test --acme auto", &["z.test", "b.test", "a.test", "p.test"]),
    ] {
        let config = load(routes, &format!("--state s {line}")).unwrap();
        let ordered = ordered(&config);
        assert_eq!(ordered.iter().map(|it| it.0).collect::<Vec<_>>(), names, "{line}");
        let (_, issuer) = ordered[0];
        assert_eq!(issuer.directory, "https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!(
            issuer.file("z.test").to_str(),
            Some("s/acme/acme-v02.api.letsencrypt.org/z.test.pem")
        );
        assert!(issuer.email.is_none() && issuer.ca.is_none());
    }
    let address: HostPattern = "192.0.2.1".parse().unwrap();
    assert_eq!(address, HostPattern::Name(Ipv4Addr::new(192, 0, 2, 1).to_string().into()));
}

#[test]
fn variables_say_the_same_and_other_certificates_may_stand_beside() {
    let variables = [
        ("ACME", "a.test, b.test"),
        ("ACME_EMAIL", "admin@a.test"),
        ("ACME_DIRECTORY", "https://localhost:14000/dir"),
        ("STATE_DIRECTORY", "/s"),
        ("TOKEN", KEY),
    ];
    let config = read("--cert c --key k", &variables).unwrap();
    assert!(matches!(config.certificates[0], CertificateSource::Files { .. }));
    let ordered = ordered(&config);
    assert_eq!((ordered.len(), ordered[1].0), (2, "b.test"));
    assert_eq!(ordered[0].1.email.as_deref(), Some("admin@a.test"));
    assert_eq!(ordered[0].1.folder.to_str(), Some("/s/acme/localhost:14000"));
    // It is a certificate, so no other is needed.
    assert_eq!(read("", &variables).unwrap().certificates.len(), 2);
}

#[test]
fn each_mistake_is_a_sentence_with_its_place() {
    for (text, place, parts) in [
        (
            "acme = ['a.test', '*.a.test']",
            "1:19",
            &["\"*.a.test\" is a wildcard", "DNS-01", "--cert"][..],
        ),
        ("acme = '*'", "1:8", &["names no host", "`auto`"]),
        ("acme = ['192.0.2.1']", "1:9", &["is an address", "--cert"]),
        ("acme = ['[::1]']", "1:9", &["is an address"]),
        ("acme = ['a.test:443']", "1:9", &["has a port"]),
        ("acme = ['https://a.test']", "1:9", &["is a URL"]),
        ("acme = ['../../etc']", "1:9", &["has a path"]),
        ("acme = true", "1:8", &["`acme` takes a name"]),
        ("acme = 'auto'", "1:8", &["`auto` finds no exact host", "name one"]),
        (
            "acme = 'a.test'\nacme_email = 'admin'",
            "2:14",
            &["acme_email \"admin\" must be an address"],
        ),
        ("acme = 'a.test'\nacme_email = 'a@b?cc=c@d'", "2:14", &["must be an address"]),
        (
            "acme = 'a.test'\nacme_directory = 'http://a.test/'",
            "2:18",
            &["must be an `https://` URL"],
        ),
        ("acme = 'a.test'\nacme_directory = 'https://u:p@a.test/'", "2:18", &["without user"]),
        ("acme = 'a.test'\nacme_ca = 'none.pem'", "2:11", &["none.pem can't be read"]),
        ("acme = 'a.test'\nacme_ca = 'ca.pem'", "2:11", &["ca.pem holds no certificate"]),
        ("self_signed = true\nacme_email = 'a@a.test'", "2:14", &["acme_email is for --acme NAME"]),
        ("self_signed = true\nacme_ca = 'ca.pem'", "2:11", &["acme_ca is for --acme NAME"]),
    ] {
        let error = load(text, "--state s").unwrap_err().to_string();
        assert!(error.contains(&format!("2ptth.toml:{place}: ")), "{text}: {error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
    let error = read("--acme a.test --state s", &[("TOKEN", KEY), ("ACME_CA", "none.pem")]);
    assert!(error.unwrap_err().to_string().contains("none.pem can't be read"));
    let error = load("acme = 'a.test'", "").unwrap_err().to_string();
    assert!(error.contains("2ptth.toml:1:8: --acme needs --state FOLDER"), "{error}");
}
