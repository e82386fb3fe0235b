//! Stream ids run out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use ptth_client::config::{Config, Gateway, Trust};
use ptth_client::dial::Network;
use ptth_client::journal::Journal;
use ptth_client::{Body, Process};
use ptth_link::crypto;
use ptth_link::shutdown::channel;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::{Peer, soon};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

/// A network of pipes, whose far ends a test takes.
#[derive(Clone)]
struct Pipes(mpsc::UnboundedSender<DuplexStream>);

impl Network for Pipes {
    type Io = DuplexStream;

    async fn connect(&self, _: &Gateway) -> io::Result<(DuplexStream, SocketAddr)> {
        let (near, far) = duplex(64 * 1024);
        self.0.send(far).map_err(io::Error::other)?;
        Ok((near, SocketAddr::from(([192, 0, 2, 1], 443))))
    }
}

/// A gateway's TLS, by which `pin` knows it.
fn tls() -> (TlsAcceptor, [u8; 32]) {
    let made =
        rcgen::generate_simple_self_signed(["example.test".to_owned()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let pin = crypto::sha256(&certificate);
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(crypto::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"2ptth".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), pin)
}

/// Streams run out after 2^30. The client renews its tunnel before: the new one is up
/// before the old one is told to end, and what runs on the old one finishes.
#[tokio::test(start_paused = true)]
async fn trap_11_a_tunnel_is_renewed_before_its_streams_run_out() {
    let (acceptor, pin) = tls();
    let (pipes, mut dialled) = mpsc::unbounded_channel();
    let mut config = Config::new(Gateway { host: "example.test".to_owned(), port: 443 });
    config.trust = Trust::Pin(pin);
    config.tunnels = 1;
    let process = Process::new(config, Journal::default()).expect("a configuration");
    let (_trigger, shutdown) = channel();
    let (release, held) = watch::channel(false);
    let service = Function(move |_: Request<Body>| {
        let mut held = held.clone();
        async move {
            let _ = held.wait_for(|release| *release).await;
            Response::new(Full::new(Bytes::from_static(b"ok")))
        }
    });
    let mut holding = JoinSet::new();
    holding.spawn(async move { process.hold(0..1, Pipes(pipes), service, shutdown).await });

    let io = dialled.recv().await.expect("the first dial");
    let mut old = Peer::asking(acceptor.accept(io).await.expect("TLS"), &[]).await;
    old.send(headers(1, END_STREAM, &get("/"))).await;
    let born = Instant::now();
    let io = tokio::select! {
        io = dialled.recv() => io.expect("the second dial"),
        frame = ended(&mut old) => panic!("{frame:?} before the second dial"),
    };
    // 2^30 streams in the four hours are 74,000 a second.
    assert!(born.elapsed() <= Duration::from_secs(4 * 3600), "{:?}", born.elapsed());
    assert!(born.elapsed() >= Duration::from_secs(3 * 3600), "{:?}", born.elapsed());
    // Nobody is told to end while the new one isn't up.
    let early = timeout(Duration::from_secs(5), ended(&mut old)).await;
    assert!(early.is_err(), "{early:?}");
    let mut new = Peer::asking(acceptor.accept(io).await.expect("TLS"), &[]).await;
    let goaway = soon("GOAWAY", async {
        tokio::select! {
            frame = ended(&mut old) => frame,
            frame = ended(&mut new) => panic!("{frame:?} on the new tunnel"),
        }
    });
    assert_eq!(goaway.await.map(|frame| (frame.kind, frame.code())), Some((GOAWAY, 0)));
    release.send(true).expect("the service waits");
    assert_eq!(old.outcome(1).await, Outcome::Response(200, b"ok".to_vec()));
    assert_eq!(old.end().await.unwrap_or(0), 0);
    new.send(headers(1, END_STREAM, &get("/"))).await;
    assert_eq!(new.outcome(1).await, Outcome::Response(200, b"ok".to_vec()));
}

/// Reads until something is said that isn't credit or PING.
async fn ended<IO: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<IO>) -> Option<Frame> {
    loop {
        match peer.next().await {
            Some(frame) if matches!(frame.kind, WINDOW_UPDATE | PING) => {}
            frame => return frame,
        }
    }
}
