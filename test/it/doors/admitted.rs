//! Any sequence of reloads and registrations, against a model that knows no names.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use ptth_server::config::{Admission, CertificateSource, Config, Route, WhenTaken};
use ptth_server::lab::Policy;
use ptth_server::lab::Registry;
use ptth_server::lab::Tunnel;
use ptth_server::lab::{Claim, Credential, Known};
use ptth_server::lab::{Identity, Key};

use super::tenants::hosts;

/// Known here by its number, or outside, where what it says of a principal and a host is kept.
#[derive(Debug)]
struct Judge {
    id: u64,
    abroad: bool,
    yes: Arc<Mutex<HashSet<(u64, u64, String)>>>,
}

fn fine(id: u64, n: u64, host: &str) -> bool {
    let mut dice = ptth_test::Dice::new(
        id * 7919 + n * 104_729 + host.bytes().fold(7, |a, b| a * 31 + u64::from(b)),
    );
    dice.below(2) == 0
}

impl Credential for Judge {
    fn check<'a>(&'a self, claim: &'a Claim<'a>) -> ptth_server::lab::Checking<'a> {
        use ptth_server::lab::Mark;
        use ptth_server::lab::{Pass, Refusal};
        let shown = claim.authorization.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let mut words = shown.split(' ').map(|it| it.parse::<u64>().unwrap());
        let (secret, n) = (words.next().unwrap(), words.next().unwrap());
        let mark = Mark::of("judge", &[&self.id.to_be_bytes()]);
        let good = if self.abroad {
            let good = claim.hosts.iter().all(|host| fine(self.id, n, host));
            if good {
                self.yes
                    .lock()
                    .unwrap()
                    .extend(claim.hosts.iter().map(|host| (self.id, n, host.clone())));
            }
            good
        } else {
            secret == self.id
        };
        let verdict = if good {
            Ok(Pass::of(mark).principal(&[&n.to_be_bytes()]))
        } else {
            Err(Refusal::Wrong("no"))
        };
        Box::pin(std::future::ready(verdict))
    }
    fn keeps(&self, mark: ptth_server::lab::Mark) -> bool {
        mark == ptth_server::lab::Mark::of("judge", &[&self.id.to_be_bytes()])
    }
    fn challenge(&self) -> Option<&'static str> {
        None
    }
    fn is_abroad(&self) -> bool {
        self.abroad
    }
}

fn width(pattern: &str, host: &str) -> Option<usize> {
    match pattern.strip_prefix("*.") {
        _ if pattern == "*" => Some(0),
        Some(suffix) => host.ends_with(&format!(".{suffix}")).then_some(1),
        None => (pattern == host).then_some(2),
    }
}

const ALL: [&str; 5] = ["a.test", "b.test", "t1.w.test", "t2.w.test", "x.w.test"];

/// A route of the model: patterns, path, credentials.
type Row = (Vec<&'static str>, &'static str, Vec<u64>);

fn in_force<'a>(rows: &'a [Row], host: &str, path: &str) -> Option<&'a Row> {
    let best = rows.iter().flat_map(|r| r.0.iter().filter_map(|p| width(p, host))).max()?;
    rows.iter()
        .filter(|r| r.0.iter().any(|p| width(p, host) == Some(best)))
        .filter(|r| r.1 == "/" || path == r.1 || path.starts_with(&format!("{}/", r.1)))
        .max_by_key(|r| r.1.len())
}

/// Any sequence of reloads, registrations and departures against a model that knows no names: no backend is
/// where the policy in force, or the authorizer that was asked, doesn't have it for that very host.
#[tokio::test]
async fn nothing_reaches_a_backend_that_is_not_admitted() {
    let (mut dice, _told) = ptth_test::Dice::told(11);
    let (io, far) = tokio::io::duplex(64 * 1024);
    let (sender, _c) = tokio::join!(
        ::h2::client::Builder::new().handshake::<_, bytes::Bytes>(io),
        ::h2::server::handshake(far)
    );
    let (sender, _conn) = sender.unwrap();
    let (mut served, mut joined, mut narrow, mut kept) = (0, 0, 0, 0);
    for round in 0..400 {
        let yes = Arc::new(Mutex::new(HashSet::new()));
        let known = Arc::new(Known::default());
        let make = |dice: &mut ptth_test::Dice| {
            let mut rows: Vec<Row> = Vec::new();
            let mut taken = HashSet::new();
            for _ in 0..=dice.below(4) {
                let path = dice.one_of(&["/", "/", "/api"]);
                let mut own = Vec::new();
                for host in ["*", "*.w.test", "a.test", "b.test", "t1.w.test", "t2.w.test"] {
                    if dice.below(3) == 0 && taken.insert((host, path)) {
                        own.push(host);
                    }
                }
                for n in (1..own.len()).rev() {
                    own.swap(n, dice.below(n as u64 + 1) as usize);
                }
                let creds: Vec<u64> = (0..4).filter(|_| dice.below(2) == 0).collect();
                if !own.is_empty() && !creds.is_empty() {
                    rows.push((own, path, creds));
                }
            }
            let mut config = Config::new(
                CertificateSource::SelfSigned { names: Vec::new(), kept: None },
                Admission::make(),
            );
            let shift = dice.below(4);
            config.routes = rows
                .iter()
                .enumerate()
                .map(|(n, row)| {
                    let mut route =
                        Route::new(format!("r{}", (n as u64 + shift) % 4), hosts(&row.0));
                    route.path = row.1.to_owned();
                    route.when_taken =
                        dice.one_of(&[WhenTaken::Balance, WhenTaken::Replace, WhenTaken::Reject]);
                    route.allow = Some(
                        row.2
                            .iter()
                            .map(|id| {
                                Arc::new(Judge { id: *id, abroad: *id >= 2, yes: yes.clone() })
                                    as Arc<dyn Credential>
                            })
                            .collect(),
                    );
                    route
                })
                .collect();
            (rows, config)
        };
        let (mut rows, config) = make(&mut dice);
        let registry = Registry::new(Policy::new(&config, &known, 1, None), 1, 64);
        let mut present = Vec::new();
        for step in 0..25 {
            match dice.below(5) {
                0 => {
                    let (next, config) = make(&mut dice);
                    rows = next;
                    registry.swap(Policy::new(&config, &known, 1, Some(&registry.policy())));
                }
                1 if !present.is_empty() => {
                    let at = dice.below(present.len() as u64) as usize;
                    drop(present.swap_remove(at));
                }
                _ => {
                    let (secret, n) = (dice.below(4), dice.below(1000));
                    let shown = http::HeaderValue::from_str(&format!("{secret} {n}")).unwrap();
                    let wanted: Vec<String> = ALL
                        .iter()
                        .filter(|_| dice.below(3) == 0)
                        .map(|it| (*it).to_owned())
                        .collect();
                    let claim = Claim {
                        chain: &[],
                        key: None,
                        authorization: Some(&shown),
                        address: Ipv4Addr::LOCALHOST.into(),
                        hosts: &wanted,
                        name: None,
                    };
                    let Ok((who, grants)) = registry.policy().register(&claim, None).await else {
                        continue;
                    };
                    let identity = Identity {
                        key: who.map(Key::Secret),
                        ..Identity::called(&format!("p{step}.0"))
                    };
                    let tunnel = Tunnel::new(
                        0,
                        (identity, grants),
                        ptth_link::budget::Budget::new(1 << 20),
                        sender.clone(),
                    );
                    if dice.below(4) == 0 {
                        // A reload between admission and joining.
                        let (next, config) = make(&mut dice);
                        rows = next;
                        registry.swap(Policy::new(&config, &known, 1, Some(&registry.policy())));
                    }
                    if let Ok(place) = registry.enroll(&tunnel) {
                        joined += 1;
                        present.push((tunnel.id, secret, n, place));
                    }
                }
            }
            for host in ALL {
                for path in ["/", "/api/x"] {
                    let route = in_force(&rows, host, path);
                    let Ok(found) = registry.policy().find(host, path) else {
                        assert!(route.is_none(), "{round} {host} {path}");
                        continue;
                    };
                    let Some(row) = route else {
                        assert!(rows.is_empty());
                        assert!(found.route.pool.is_empty());
                        continue;
                    };
                    for tunnel in found.route.pool.all() {
                        let Some((_, secret, n, _)) = present.iter().find(|it| it.0 == tunnel.id)
                        else {
                            panic!("a ghost")
                        };
                        served += 1;
                        narrow += usize::from(
                            found.route.id.to_string().starts_with('t') && !row.0.contains(&host),
                        );
                        let yes = yes.lock().unwrap();
                        let local = row.2.iter().any(|id| *id < 2 && id == secret);
                        let asked = row.2.iter().any(|id| {
                            *id >= 2
                                && yes.iter().any(|(by, of, text)| {
                                    by == id && of == n && width(text, host).is_some()
                                })
                        });
                        assert!(
                            local || asked,
                            "round {round} step {step}: {host}{path} reaches {secret}/{n}; {row:?}; {:?}; {:?}",
                            tunnel.grants,
                            yes.iter().filter(|it| it.1 == *n).collect::<Vec<_>>()
                        );
                        kept += usize::from(asked && !local);
                    }
                }
            }
        }
    }
    let seen = [served, joined, narrow, kept];
    assert!(seen.iter().all(|count| *count > 100), "a test of nothing: {seen:?}");
}

/// A policy by which those of `ids` may serve a.test.
fn allowing(ids: &[u64], known: &Arc<Known>, before: Option<&Policy>) -> Policy {
    let mut config = Config::new(
        CertificateSource::SelfSigned { names: Vec::new(), kept: None },
        Admission::make(),
    );
    let mut route = Route::new("a", hosts(&["a.test"]));
    let judge = |id: &u64| Judge { id: *id, abroad: false, yes: Arc::default() };
    route.allow = Some(ids.iter().map(|id| Arc::new(judge(id)) as Arc<dyn Credential>).collect());
    config.routes = vec![route];
    Policy::new(&config, known, 1, before)
}

/// Who is let in no longer is asked by nobody who finds its way by the policy that says so, not even while the
/// two are exchanged.
#[tokio::test]
async fn a_reload_has_no_moment_in_which_both_policies_count() {
    let (io, _far) = tokio::io::duplex(64 * 1024);
    let (sender, _connection) =
        ::h2::client::Builder::new().handshake::<_, bytes::Bytes>(io).await.unwrap();
    let known = Arc::new(Known::default());
    let mut asked = 0;
    for _ in 0..40 {
        let registry = Registry::new(allowing(&[0, 1], &known, None), 1, 64);
        let mut present = Vec::new();
        for n in 0..100_u64 {
            let shown = http::HeaderValue::from_str(&format!("{} {n}", n % 2)).unwrap();
            let claim = Claim {
                chain: &[],
                key: None,
                authorization: Some(&shown),
                address: Ipv4Addr::LOCALHOST.into(),
                hosts: &[],
                name: None,
            };
            let (who, grants) = registry.policy().register(&claim, None).await.unwrap();
            let key = who.map(Key::Secret);
            let identity = Identity { key, ..Identity::called(&format!("p{n}.{}", n % 2)) };
            let budget = ptth_link::budget::Budget::new(1 << 20);
            let tunnel = Tunnel::new(0, (identity, grants), budget, sender.clone());
            present.push(registry.enroll(&tunnel).unwrap());
        }
        let over = std::sync::atomic::AtomicBool::new(false);
        let before = registry.policy();
        let stale = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let (mut looks, mut stale) = (0, 0);
                while !over.load(std::sync::atomic::Ordering::Relaxed) || looks == 0 {
                    let policy = registry.policy();
                    let found = policy.find("a.test", "/").unwrap().route.pool.all();
                    if !Arc::ptr_eq(&policy, &before) {
                        looks += 1;
                        stale +=
                            usize::from(found.iter().any(|it| it.identity.name.ends_with(".1")));
                    }
                }
                asked += looks;
                stale
            });
            registry.swap(allowing(&[0], &known, Some(&before)));
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            asking.join().unwrap()
        });
        assert_eq!(stale, 0, "by the new policy, and to who isn't in it");
        drop(present);
    }
    assert!(asked >= 40, "{asked}");
}
