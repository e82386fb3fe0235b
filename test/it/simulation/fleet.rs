//! A fleet on the simulated network: each backend has a tunnel to each gateway, and loses it by a partition, by a crash
//! and by an orderly restart of many gateways at once. All come back, and the dials for them are spread.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use ptth_client::Body;
use ptth_client::config::{Config as ClientConfig, Gateway as Address, Trust};
use ptth_client::dial::Network;
use ptth_link::shutdown::{Phase, channel};
use ptth_link::token::Token;
use ptth_server::config::{Admission, CertificateSource, Config};
use ptth_server::lab::Shard;
use ptth_test::Dice;
use ptth_test::room::{Guest, process, serve};
use ptth_test::service::service;
use tokio::select;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use turmoil::net::{TcpListener, TcpStream};

use super::ANY;

/// What all hosts write in, and chaos reads.
#[derive(Default)]
struct Book {
    /// The gateways as they run now.
    shards: BTreeMap<usize, Arc<Shard>>,
    /// The connections that each gateway accepted in each second.
    accepted: BTreeMap<(u64, usize), usize>,
}

type Shared = Arc<Mutex<Book>>;

fn with<T>(book: &Shared, act: impl FnOnce(&mut Book) -> T) -> T {
    act(&mut book.lock().unwrap_or_else(PoisonError::into_inner))
}

fn second() -> u64 {
    turmoil::sim_elapsed().unwrap_or_default().as_secs()
}

/// Runs one gateway; each phase that comes by `hand` ends it, and it begins anew.
async fn gateway(n: usize, config: Config, book: Shared, mut hand: UnboundedReceiver<Phase>) {
    loop {
        let (trigger, shutdown) = channel();
        let (shard, _) = Shard::alone(&config, shutdown).expect("a gateway");
        with(&book, |book| book.shards.insert(n, shard.clone()));
        let listener = TcpListener::bind((ANY, 443)).await.expect("its port");
        let mut connections = JoinSet::new();
        let phase = loop {
            select! {
                accepted = listener.accept() => {
                    let (socket, peer) = accepted.expect("a connection");
                    with(&book, |book| *book.accepted.entry((second(), n)).or_default() += 1);
                    connections.spawn(serve(shard.clone(), socket, peer));
                }
                Some(_) = connections.join_next() => {}
                Some(phase) = hand.recv() => break phase,
            }
        };
        drop(listener);
        with(&book, |book| book.shards.remove(&n));
        trigger.advance(phase);
        let drained = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(Duration::from_secs(5), drained).await;
        connections.shutdown().await;
        sleep(DOWN).await;
    }
}

/// The network of a backend, whose gateway's name has these addresses.
#[derive(Clone)]
struct Named(Arc<[SocketAddr]>);

impl Network for Named {
    type Io = TcpStream;

    async fn connect(&self, gateway: &Address) -> io::Result<(TcpStream, SocketAddr)> {
        let address = gateway.to_string().parse().expect("an address of the name");
        Ok((TcpStream::connect(address).await?, address))
    }

    async fn addresses(&self, _: &Address) -> io::Result<Vec<SocketAddr>> {
        Ok(self.0.to_vec())
    }
}

async fn backend(token: Token, start: Duration, gateways: usize) {
    sleep(start).await;
    let address = |n| SocketAddr::new(turmoil::lookup(format!("gateway{n}")), 443);
    let name = Named((0..gateways).map(address).collect());
    let mut config = ClientConfig::new(Address { host: "fleet".to_owned(), port: 443 });
    config.trust = Trust::Insecure;
    config.token = Some(token);
    config.all_addresses = true;
    config.tunnels = 1;
    let answer = |_: Request<Body>| async { Ok::<_, Infallible>(Response::new(String::new())) };
    let _guest = Guest::start(&process(config), name, service(answer));
    std::future::pending().await
}

struct Chaos {
    book: Shared,
    levers: Vec<UnboundedSender<Phase>>,
    backends: usize,
}

impl Chaos {
    /// Waits until each gateway has a tunnel of each backend, and prints what came in each second since `from`.
    async fn until_whole(&self, what: &str, from: u64) {
        let whole = |book: &mut Book| {
            let count = |shard: &Arc<Shard>| {
                shard.registry.all().iter().filter(|tunnel| !tunnel.is_draining()).count()
            };
            book.shards.len() == self.levers.len()
                && book.shards.values().all(|shard| count(shard) == self.backends)
        };
        while !with(&self.book, whole) {
            assert!(
                second() < from + RECOVERY,
                "{what}: {:?}",
                with(&self.book, |it| it.shards.len())
            );
            sleep(Duration::from_millis(100)).await;
        }
        let accepted = with(&self.book, |book| book.accepted.split_off(&(from, 0)));
        let mut histogram = BTreeMap::<u64, usize>::new();
        for ((second, _), count) in &accepted {
            *histogram.entry(second - from).or_default() += count;
        }
        let mut lines =
            format!("{what}: whole after {} s; dials in each second\n", second() - from);
        for (second, count) in histogram {
            let _ = writeln!(lines, "{second:>4} {count:>6} {}", "#".repeat(count.div_ceil(50)));
        }
        let largest = accepted.values().copied().max().unwrap_or_default();
        println!("{lines}     at one gateway at most {largest} of {} backends", self.backends);
        // Few backends may all come in one second by chance.
        let spread = self.backends < MANY || largest <= self.backends * 9 / 10;
        assert!(spread, "{what}: {largest} at once");
    }

    async fn run(self) {
        let (gateways, backends) = (self.levers.len(), self.backends);
        self.until_whole("start", 0).await;
        // Half of the backends and a third of the gateways can't hear each other, for longer than any patience.
        let pairs = (0..gateways / 3).flat_map(|g| (0..backends / 2).map(move |b| (g, b)));
        let pairs: Vec<_> =
            pairs.map(|(g, b)| (format!("gateway{g}"), format!("backend{b}"))).collect();
        pairs.iter().for_each(|(g, b)| turmoil::partition(g.as_str(), b.as_str()));
        sleep(Duration::from_secs(90)).await;
        let lost = with(&self.book, |book| book.shards[&0].registry.all().len());
        assert_eq!(lost, backends - backends / 2, "the gateway noticed");
        pairs.iter().for_each(|(g, b)| turmoil::repair(g.as_str(), b.as_str()));
        self.until_whole("after a partition", second()).await;
        for (what, phase) in
            [("after a crash", Phase::Closing), ("after a restart", Phase::Draining)]
        {
            let begun = second();
            for lever in self.levers.iter().take(gateways / 2) {
                lever.send(phase).expect("it runs");
            }
            sleep(DOWN).await;
            self.until_whole(what, begun).await;
        }
    }
}

fn simulate(gateways: usize, backends: usize) {
    let mut sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(50))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(100))
        .tcp_capacity(4096)
        .rng_seed(1)
        .build();
    let mut dice = Dice::new(1);
    let tokens: Vec<_> = (0..backends).map(|_| Token::generate()).collect();
    let keys = tokens.iter().map(Token::public).collect();
    let admission = Admission::Keys { keys, file: None, made: None };
    let certificate = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
    let mut config = Config::new(certificate, admission);
    config.limits.connections = Some(10 * backends);
    let (book, mut levers) = (Shared::default(), Vec::new());
    for n in 0..gateways {
        let (lever, hand) = unbounded_channel();
        levers.push(lever);
        let (config, book) = (config.clone(), book.clone());
        sim.client(format!("gateway{n}"), async move {
            gateway(n, config, book, hand).await;
            Ok(())
        });
    }
    for (n, token) in tokens.into_iter().enumerate() {
        let start = dice.millis(10_000);
        sim.client(format!("backend{n}"), async move {
            backend(token, start, gateways).await;
            Ok(())
        });
    }
    let chaos = Chaos { book, levers, backends };
    let (over, mut end) = tokio::sync::oneshot::channel();
    sim.client("chaos", async move {
        chaos.run().await;
        let _ = over.send(());
        Ok(())
    });
    while end.try_recv().is_err() {
        let ended = sim.step().expect("no host panics");
        assert!(!ended, "chaos ends first");
    }
}

#[test]
fn a_small_fleet_gets_all_its_tunnels_back() {
    simulate(4, 10);
}

#[test]
#[ignore = "heavy: four minutes in release, by hand"]
fn a_fleet_of_50_gateways_and_200_backends_gets_all_its_tunnels_back_and_is_dialled_in_turn() {
    simulate(50, 200);
}

/// Of a gateway between two lives.
const DOWN: Duration = Duration::from_secs(2);
const MANY: usize = 100;
/// Seconds: the longest pause between two dials, and a dial that hangs.
const RECOVERY: u64 = 90;
