//! A gateway takes over from another one: visitors notice nothing.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ptth_link::token::Token;
use ptth_test::process::{Process, address_of, binary};
use ptth_test::{Folder, H1, soon};
use tokio::process::Command;
use tokio::task::JoinSet;

/// Visitors who come one after the other, each on a connection of his own, until they are told to stop.
struct Visitors {
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    running: JoinSet<()>,
}

impl Visitors {
    fn come(address: SocketAddr) -> Self {
        let (asked, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut running = JoinSet::new();
        for _ in 0..4 {
            let (asked, over) = (asked.clone(), over.clone());
            running.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let mut visitor = H1::to(address).await.expect("a connection");
                    visitor
                        .send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                        .await;
                    let answer = soon("an answer", visitor.answer()).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { asked, over, running }
    }

    /// Until so many more were served.
    async fn served(&mut self, more: usize) {
        let goal = self.asked.load(Ordering::Relaxed) + more;
        soon("visitors", async {
            while self.asked.load(Ordering::Relaxed) < goal {
                if let Some(done) = self.running.try_join_next() {
                    done.expect("each of them is served");
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn leave(mut self) {
        self.over.store(true, Ordering::Relaxed);
        while let Some(done) = self.running.join_next().await {
            done.expect("each of them was served");
        }
    }
}

/// A token in a file, and the certificate that both have.
fn files(folder: &Folder) -> (String, Vec<String>) {
    let token = Token::generate();
    let certificate = ptth_test::Certificate::of(&["127.0.0.1"]);
    let (cert, key) = certificate.write(folder);
    let keys = folder.write("tokens", token.public().to_string());
    let flags = [("--cert", cert), ("--key", key), ("--token-file", keys)];
    let flags = flags.map(|(flag, path)| [flag.to_owned(), path.display().to_string()]);
    (token.reveal(), flags.concat())
}

fn client(address: SocketAddr, token: &str) -> Process {
    Process::start("2ptth-client", &["--insecure", &address.to_string()], &[("TOKEN", token)])
}

/// Both listen, then the first one ends.
#[tokio::test]
async fn a_gateway_hands_its_port_over_without_a_gap() {
    let folder = Folder::new();
    let (token, flags) = files(&folder);
    let start = |listen: &str, more: &[&str]| {
        let more = more.iter().map(|flag| (*flag).to_owned());
        let listen = ["--listen".to_owned(), listen.to_owned()];
        let flags: Vec<_> = flags.iter().cloned().chain(listen).chain(more).collect();
        Process::start("2ptth-server", &flags, &[])
    };
    let mut gateway = start("127.0.0.1:0", &[]);
    let address = address_of(&gateway).await;
    let _client = client(address, &token);
    gateway.logs(" up name=").await;
    let listen = address.to_string();
    // By mistake nobody gets half of another one's visitors.
    let second = start(&listen, &[]).ended().await;
    assert!(second.stderr.contains("another program has that port"), "{second:?}");
    let mut visitors = Visitors::come(address);
    for _ in 0..3 {
        visitors.served(50).await;
        let heir = start(&listen, &["--take-over"]);
        heir.says("2ptth-client ").await;
        gateway.signal("TERM");
        assert_eq!(gateway.ended().await.code, Some(0));
        heir.logs(" up name=").await;
        gateway = heir;
    }
    visitors.served(50).await;
    visitors.leave().await;
}

/// As systemd starts it, which keeps the socket: who comes meanwhile waits.
#[tokio::test]
async fn a_gateway_is_restarted_on_a_socket_that_outlasts_it() {
    let folder = Folder::new();
    let (token, flags) = files(&folder);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let start = || {
        let mut shell = Command::new("sh");
        let held = OwnedFd::from(socket.try_clone().unwrap());
        let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        shell.args(["-c", script]).arg(binary("2ptth-server")).args(&flags);
        shell.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "https").stdin(Stdio::from(held));
        Process::adopt(shell)
    };
    let mut gateway = start();
    assert_eq!(address_of(&gateway).await, address);
    let _client = client(address, &token);
    gateway.logs(" up name=").await;
    let mut visitors = Visitors::come(address);
    for _ in 0..3 {
        visitors.served(50).await;
        gateway.signal("TERM");
        assert_eq!(gateway.ended().await.code, Some(0));
        gateway = start();
        gateway.logs(" up name=").await;
    }
    visitors.served(50).await;
    visitors.leave().await;
}
