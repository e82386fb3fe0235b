//! A fleet: gateways that share nothing but a name, a certificate and keys, and backends with tunnels to each of them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use ptth_client::Body;
use ptth_client::config::{Config, Gateway, Trust};
use ptth_client::dial::{Network, Tcp};
use ptth_link::token::Token;
use ptth_test::process::{Process, address_of};
use ptth_test::room::{Guest, process};
use ptth_test::service::service;
use ptth_test::{Certificate, Folder, connect_to, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The addresses of the gateway's name, which visitors and backends look up.
#[derive(Clone, Default)]
struct Name(Arc<Mutex<Vec<SocketAddr>>>);

impl Name {
    fn change<T>(&self, change: impl FnOnce(&mut Vec<SocketAddr>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn all(&self) -> Vec<SocketAddr> {
        self.change(|all| all.clone())
    }
}

impl Network for Name {
    type Io = TcpStream;

    async fn connect(&self, gateway: &Gateway) -> io::Result<(TcpStream, SocketAddr)> {
        Tcp.connect(gateway).await
    }

    async fn addresses(&self, _: &Gateway) -> io::Result<Vec<SocketAddr>> {
        Ok(self.all())
    }
}

/// What all gateways have, and nothing else of each other.
struct Fleet {
    name: Name,
    folder: Folder,
    certificate: Certificate,
    token: Token,
}

impl Fleet {
    fn new() -> Self {
        let (folder, token) = (Folder::new(), Token::generate());
        let certificate = Certificate::of(&["example.test"]);
        certificate.write(&folder);
        folder.write("tokens", token.public().to_string());
        // Visitors know a gateway that was just started before its backends are back.
        let route = "[[route]]\nhosts = ['example.test']\nhold = '10s'\n[[route.allow]]\nkey_file = 'tokens'";
        folder.write("gateway.toml", format!("cert = 'cert.pem'\nkey = 'key.pem'\n{route}\n"));
        Self { name: Name::default(), folder, certificate, token }
    }

    /// A gateway, of the real program.
    async fn gateway(&self, listen: SocketAddr) -> (SocketAddr, Process) {
        let config = self.folder.path("gateway.toml").display().to_string();
        let arguments = ["--listen", &listen.to_string(), "--config", &config];
        let gateway = Process::start("2ptth-server", &arguments, &[]);
        (address_of(&gateway).await, gateway)
    }

    fn backend(&self) -> Guest {
        let mut config = Config::new(Gateway { host: "example.test".to_owned(), port: 1 });
        config.trust = Trust::Pin(self.certificate.pin());
        config.token = Some(self.token.clone());
        config.all_addresses = true;
        let answer = service(|request: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(request.uri().path().to_owned()))
        });
        Guest::start(&process(config), self.name.clone(), answer)
    }
}

/// A request that has no whole answer: where it was, since when, and what came.
type Failed = (SocketAddr, Instant, String);

#[derive(Default)]
struct Answers {
    whole: BTreeMap<SocketAddr, usize>,
    failed: Vec<Failed>,
}

/// Visitors that ask one address after the other, each on a connection of its own.
struct Load {
    asking: JoinSet<()>,
    answers: Arc<Mutex<Answers>>,
    name: Name,
}

impl Load {
    fn start(name: &Name) -> Self {
        let answers: Arc<Mutex<Answers>> = Arc::default();
        let mut asking = JoinSet::new();
        for visitor in 0..VISITORS {
            asking.spawn(visit(name.clone(), answers.clone(), visitor));
        }
        Self { asking, answers, name: name.clone() }
    }

    fn read<T>(&self, read: impl FnOnce(&Answers) -> T) -> T {
        read(&self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until each address of the name has given so many more answers.
    async fn go_on(&mut self, more: usize) {
        let whole = |address: &SocketAddr| {
            self.read(|answers| answers.whole.get(address).copied().unwrap_or_default())
        };
        let goals: Vec<_> = self.name.all().iter().map(|it| (*it, whole(it) + more)).collect();
        soon("the load", async {
            while goals.iter().any(|(address, goal)| whole(address) < *goal) {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        if let Some(ended) = self.asking.try_join_next() {
            ended.expect("a visitor asks for ever");
        }
    }
}

async fn visit(name: Name, answers: Arc<Mutex<Answers>>, visitor: usize) {
    for n in visitor.. {
        let addresses = name.all();
        let path = format!("/{visitor}/{n}");
        // A connection that isn't made has lost nothing: browsers and balancers take the next address.
        for address in addresses.iter().cycle().skip(n % addresses.len()).take(addresses.len()) {
            let Ok(mut stream) = connect_to(*address, &[b"http/1.1"]).await else { continue };
            let begun = Instant::now();
            let asked = async {
                let head = format!(
                    "GET {path} HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.map(|_| answer)
            };
            let answer = soon("an answer", asked).await.unwrap_or_else(|err| err.to_string());
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answer.starts_with("HTTP/1.1 200 ") && answer.contains(&path) {
                *answers.whole.entry(*address).or_default() += 1;
            } else {
                answers.failed.push((*address, begun, answer));
            }
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// Tells it to stop, and starts another one in its place when it has ended.
async fn restart(fleet: &Fleet, address: SocketAddr, gateway: Process) -> Process {
    gateway.signal("TERM");
    let ended = gateway.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (_, gateway) = fleet.gateway(address).await;
    gateway.logs_times(UP, TUNNELS * BACKENDS).await;
    gateway
}

#[tokio::test]
async fn a_fleet_is_restarted_and_changed_without_a_failed_request() {
    let fleet = Fleet::new();
    let first = fleet.gateway(SocketAddr::from(([127, 0, 0, 2], 0))).await;
    let port = first.0.port();
    let at = |n| SocketAddr::from(([127, 0, 0, n], port));
    let mut gateways =
        BTreeMap::from([first, fleet.gateway(at(3)).await, fleet.gateway(at(4)).await]);
    fleet.name.change(|all| all.extend(gateways.keys()));
    let mut backends: Vec<_> = (0..BACKENDS).map(|_| fleet.backend()).collect();
    for gateway in gateways.values() {
        gateway.logs_times(UP, TUNNELS * BACKENDS).await;
    }
    let mut load = Load::start(&fleet.name);
    load.go_on(20).await;
    for n in 2..=4 {
        let old = gateways.remove(&at(n)).expect("it runs");
        gateways.insert(at(n), restart(&fleet, at(n), old).await);
        load.go_on(20).await;
    }
    for n in 1..=BACKENDS {
        backends.push(fleet.backend());
        for gateway in gateways.values() {
            gateway.logs_times(UP, TUNNELS * (BACKENDS + n)).await;
        }
        let old = backends.remove(0);
        old.stop();
        soon("the backend's end", old.ended()).await.expect("an orderly end");
        load.go_on(10).await;
    }
    assert_eq!(load.read(|answers| answers.failed.clone()), [], "nothing was killed");
    // One more that the name has, and one that is gone without a word; the failed dials have the name looked up.
    let (_, added) = fleet.gateway(at(5)).await;
    fleet.name.change(|all| all.push(at(5)));
    let dead = gateways.remove(&at(3)).expect("it runs");
    let killed = Instant::now();
    dead.kill().await;
    let gone = Instant::now();
    added.logs_times(UP, TUNNELS * BACKENDS).await;
    fleet.name.change(|all| all.retain(|it| *it != at(3)));
    load.go_on(50).await;
    load.read(|answers| {
        for (address, begun, what) in &answers.failed {
            assert!(*address == at(3) && *begun < gone, "{address} {what}");
        }
        let lost = answers.failed.len();
        assert!(lost <= VISITORS, "{lost} failed, and each visitor has one request at a time");
        println!("{:?} answers, {lost} lost within {:?}", answers.whole, gone - killed);
    });
}

const BACKENDS: usize = 5;
/// Of each backend to each gateway.
const TUNNELS: usize = 2;
const VISITORS: usize = 6;
/// What a gateway logs of each tunnel.
const UP: &str = " up name=";
