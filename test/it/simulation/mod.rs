//! The whole system on a network that is drawn from a seed: gateway, backends and visitors under turmoil.
//!
//! Tunnels are cut at any byte, packets vanish or wait, backends are taken over, drained and crash, the
//! gateway restarts. Whatever happens: no cut ever looks like a complete response, no request runs twice,
//! none hangs, and when the weather is fair again requests succeed again.
//!
//! Keys and TLS' own random numbers aren't drawn from the seed; what the network does depends on them only
//! by a few bytes of the length of a handshake. `SEEDS=1000` runs more seeds, `SEED=17` runs one.

mod actors;
mod chaos;
mod fleet;
mod visitors;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ptth_test::Dice;

/// What happened, for all to write in and for the end to judge.
#[derive(Clone, Debug, Default)]
struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    runs: HashMap<u64, u32>,
    complete: u64,
    failed: u64,
    findings: Vec<String>,
}

impl Ledger {
    fn write<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A service has begun to work on a request.
    fn runs(&self, id: u64) {
        self.write(|book| {
            let runs = book.runs.entry(id).or_default();
            *runs += 1;
            if *runs > 1 {
                book.findings.push(format!("request {id} ran {runs} times"));
            }
        });
    }

    /// A promise was broken.
    fn find(&self, what: String) {
        self.write(|book| book.findings.push(what));
    }
}

/// The bytes that belong to a request.
fn pattern(id: u64, from: usize, count: usize) -> Bytes {
    (from..from + count).map(|n| (id as usize).wrapping_mul(31).wrapping_add(n * 7) as u8).collect()
}

/// Runs one seed, and returns how many requests were answered and how many failed.
fn simulate(seed: u64) -> (u64, u64) {
    let mut dice = Dice::new(seed);
    let ledger = Ledger::default();
    let mut sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(400))
        .tick_duration(Duration::from_millis(25))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(1 + dice.below(100)))
        .tcp_capacity(4096)
        .rng_seed(seed)
        .enable_random_order()
        .build();
    let (levers, hands) = actors::levers();
    let gateway = actors::Gateway::new(hands.gateway);
    let token = gateway.token.clone();
    sim.host("gateway", move || gateway.clone().run());
    for (name, hand) in ["a", "b"].into_iter().zip(hands.backends) {
        let backend = actors::Backend::new(token.clone(), dice.split(), ledger.clone(), hand);
        sim.host(name, move || backend.clone().run());
    }
    let done = Arc::new(AtomicU64::new(0));
    for n in 0..visitors::COUNT {
        let visitor = visitors::Visitor::new(n, dice.split(), ledger.clone());
        let done = done.clone();
        sim.client(format!("visitor{n}"), async move {
            visitor.run().await;
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
    }
    let (dice, book) = (dice.split(), ledger.clone());
    sim.client("chaos", async move {
        chaos::run(dice, levers, book, done).await;
        Ok(())
    });
    if let Err(err) = sim.run() {
        ledger.find(format!("the simulation ended badly: {err}"));
    }
    drop(sim);
    ledger.write(|book| {
        assert!(book.findings.is_empty(), "seed {seed}: {:#?}", book.findings);
        (book.complete, book.failed)
    })
}

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok()?.parse().ok();
    match number("SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

#[test]
fn whatever_the_network_does_no_cut_looks_complete_and_nothing_runs_twice_or_hangs() {
    let seeds = Mutex::new(seeds().into_iter());
    let sum = Mutex::new((0, 0));
    let next = || seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    let (complete, failed) = simulate(seed);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    *sum = (sum.0 + complete, sum.1 + failed);
                }
            });
        }
    });
    let (complete, failed) = sum.into_inner().unwrap();
    // Neither a network where everything fails nor one where nothing does would tell anything.
    assert!(complete > failed && failed > 0, "{complete} complete, {failed} failed");
}

/// In the normal run: some ten seconds of one core.
const SEEDS: u64 = if cfg!(debug_assertions) { 20 } else { 100 };

/// Listening on any address of a simulated host.
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
