//! Which tunnel has a route after another one came or went.

use h2::client::SendRequest;
use ptth_link::budget::Budget;
use ptth_link::token::Token;

use crate::auth::Known;
use crate::config::{Admission, CertificateSource, Config, Route as Settings};

use super::*;

/// Backends that may serve `x.test`, where the last one replaces the others, and a host of their own each.
struct Lab {
    registry: Arc<Registry>,
    keys: Vec<Key>,
    sender: SendRequest<bytes::Bytes>,
}

impl Lab {
    async fn new(backends: usize) -> Self {
        let certificate = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
        let mut config = Config::new(certificate, Admission::make());
        let keys: Vec<_> = (0..backends).map(|_| Token::generate().public()).collect();
        let hosts = (0..backends).map(|n| n.to_string()).chain(["x".to_owned()]);
        config.routes = hosts.map(|host| route(&host)).collect();
        let known = Arc::new(Known::default());
        known.replace(false, &keys);
        let registry = Registry::new(Policy::new(&config, &known, 1, None), 1, 9);
        let (near, _far) = tokio::io::duplex(1 << 16);
        let (sender, _) = h2::client::handshake(near).await.unwrap();
        Self { registry, keys: keys.into_iter().map(Key::Ed25519).collect(), sender }
    }

    fn identity(&self, backend: usize, instance: &str) -> Identity {
        Identity { key: Some(self.keys[backend]), ..Identity::called(&format!("{instance}.0")) }
    }

    fn enroll(&self, backend: usize) -> Result<(TunnelId, Registration), Why> {
        let grants = vec![Grant::by_key(site("x")), Grant::by_key(site(&backend.to_string()))];
        let identity = self.identity(backend, "process");
        let sender = self.sender.clone();
        let tunnel = Tunnel::new(0, (identity, grants), Budget::new(1 << 20), sender);
        Ok((tunnel.id, self.registry.enroll(&tunnel)?))
    }

    fn serving(&self, host: &str) -> Vec<TunnelId> {
        let found = self.registry.policy().find(&format!("{host}.test"), "/").unwrap();
        found.route.pool.all().iter().map(|tunnel| tunnel.id).collect()
    }
}

fn route(host: &str) -> Settings {
    let hosts = vec![format!("{host}.test").parse().unwrap()];
    Settings { when_taken: WhenTaken::Replace, ..Settings::new(host, hosts) }
}

fn site(host: &str) -> RouteId {
    RouteId::Host(format!("{host}.test").parse().unwrap(), "/".into())
}

/// One, and not each of those that lost it.
#[tokio::test]
async fn a_route_falls_back_to_the_first_that_lost_it_alone() {
    let lab = Lab::new(3).await;
    let [first, second, third] = [0, 1, 2].map(|backend| lab.enroll(backend).unwrap());
    assert_eq!(lab.serving("x"), [third.0]);
    assert_eq!(lab.serving("0"), [first.0], "it goes on with the rest");
    drop(third);
    assert_eq!(lab.serving("x"), [first.0]);
    drop(first);
    assert_eq!(lab.serving("x"), [second.0]);
    drop(second);
    assert!(lab.serving("x").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replaced_backend_may_not_come_back_for_a_minute_after_its_last_attempt() {
    let lab = Lab::new(2).await;
    let _first = lab.enroll(0).unwrap();
    let _second = lab.enroll(1).unwrap();
    let is_kept_out = |backend: usize, instance: &str, host: &str| {
        let identity = lab.identity(backend, instance);
        !lab.registry.keepers(&identity, &[Grant::by_key(site(host))]).is_empty()
    };
    assert!(is_kept_out(0, "process", "x"));
    assert!(!is_kept_out(0, "other", "x") && !is_kept_out(0, "process", "1"));
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(is_kept_out(0, "process", "x"));
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(lab.enroll(0).is_err(), "the attempt counted");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(!is_kept_out(0, "process", "x"));
    let _again = lab.enroll(0).unwrap();
    assert!(is_kept_out(1, "process", "x") && !is_kept_out(0, "process", "x"));
}
