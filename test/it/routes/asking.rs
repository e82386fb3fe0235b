//! What a backend may serve that asks for hosts: by origins at door B, by SNI at door A.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ptth_link::token::Token;
use ptth_server::config::{Admission, CertificateSource, Config};
use ptth_server::lab::Grant;
use ptth_server::lab::RouteId;
use ptth_server::lab::{Claim, Known};
use ptth_server::lab::{Identity, Key};
use ptth_server::lab::{Policy, Refused};
use ptth_test::routes::{names, route};

/// Three routes, of which `any` is for every host that no other one has, and names.
fn policy(blog: &Token, any: &Token, named: &Token) -> Policy {
    let from = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
    let mut config = Config::new(from, Admission::make());
    let hosts = ["blog.test", "bob.tunnel.example.test"];
    let mut api = route("api", &["blog.test"], &[any]);
    api.path = "/api".to_owned();
    config.routes = vec![route("blog", &hosts, &[blog]), api, route("any", &["*"], &[any, blog])];
    config.names = Some(names(&[(named, None)]));
    Policy::new(&config, &Arc::new(Known::default()), 1, None)
}

fn key(token: &Token) -> Option<Key> {
    Some(Key::Ed25519(token.public()))
}

/// What the routes of these names serve.
fn sites(names: &[&str]) -> Vec<RouteId> {
    let hosts = names.iter().flat_map(|name| match *name {
        "blog" => vec![("blog.test", "/"), ("bob.tunnel.example.test", "/")],
        "api" => vec![("blog.test", "/api")],
        _ => vec![("*", "/")],
    });
    hosts.map(|(host, path)| RouteId::Host(host.parse().unwrap(), path.into())).collect()
}

fn granted(grants: &[Grant]) -> Vec<RouteId> {
    grants.iter().map(|grant| grant.route().clone()).collect()
}

/// A route for every host isn't good for a host that somebody else's route has: its requests go
/// there. And all of the origins must be theirs, or none is.
#[tokio::test]
async fn a_wide_route_is_not_good_for_a_host_that_a_narrower_one_has() {
    let (blog, any, named) = (Token::generate(), Token::generate(), Token::generate());
    let policy = policy(&blog, &any, &named);
    let ann = || vec![RouteId::Name("ann".to_owned())];
    type Case<'a> = (&'a Token, &'a [&'a str], Option<Vec<RouteId>>);
    let cases: [Case<'_>; 11] = [
        (&blog, &["blog.test"], Some(sites(&["blog"]))),
        (&blog, &["Blog.test.:443"], Some(sites(&["blog"]))),
        (&any, &["blog.test"], Some(sites(&["api"]))),
        (&any, &["other.test"], Some(sites(&["any"]))),
        (&any, &["bob.tunnel.example.test"], None),
        (&any, &["other.test", "bob.tunnel.example.test"], None),
        (&any, &["other.test", "blog.test"], Some(sites(&["any", "api"]))),
        (&named, &["ann.tunnel.example.test"], Some(ann())),
        (&named, &["bob.tunnel.example.test"], None),
        (&named, &["other.test"], None),
        (&any, &["ann.tunnel.example.test"], None),
    ];
    for (token, hosts, expected) in cases {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let claim = Claim {
            chain: &[],
            key: key(token),
            authorization: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            hosts: &hosts,
            name: None,
        };
        let got = policy.register(&claim, None).await;
        match expected {
            Some(sites) => assert_eq!(granted(&got.expect("it is let in").1), sites, "{hosts:?}"),
            None => assert!(matches!(got, Err(Refused::Forbidden(_))), "{hosts:?}: {got:?}"),
        }
    }
}

/// SNI chooses among what the key is good for, by where that host's visitors go.
#[tokio::test]
async fn sni_chooses_among_the_routes_of_a_key() {
    let (blog, any, named) = (Token::generate(), Token::generate(), Token::generate());
    let policy = policy(&blog, &any, &named);
    let policy = &policy;
    let admit = async |token: &Token, sni: &str| {
        let sni = Some(sni.to_owned());
        let identity = Identity { key: key(token), sni, ..Identity::default() };
        let admitted = policy.admit(&identity, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
        admitted.map(|grants| granted(&grants))
    };
    assert_eq!(admit(&blog, "blog.test").await, Ok(sites(&["blog"])));
    assert_eq!(admit(&any, "blog.test").await, Ok(sites(&["api"])));
    assert_eq!(admit(&blog, "other.test").await, Ok(sites(&["any"])));
    assert_eq!(admit(&any, "bob.tunnel.example.test").await, Ok(sites(&["api", "any"])));
    assert_eq!(
        admit(&named, "ann.tunnel.example.test").await,
        Ok(vec![RouteId::Name("ann".to_owned())])
    );
    assert!(matches!(admit(&named, "bob.tunnel.example.test").await, Err(Refused::Forbidden(_))));
}
