//! The gateway and the backends, and the levers that chaos pulls.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use ptth_client::config::{Config as ClientConfig, Gateway as Address, Trust};
use ptth_client::dial::Network;
use ptth_client::{Body, Process};
use ptth_link::shutdown::{Phase, channel};
use ptth_link::token::Token;
use ptth_server::config::{Admission, CertificateSource, Config};
use ptth_server::lab::Shard;
use ptth_test::room::{Guest, process, serve};
use ptth_test::service::service;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::select;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use turmoil::net::{TcpListener, TcpStream};

use super::{ANY, Dice, Ledger, pattern};

/// What an actor is told to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Finish what runs, then begin anew.
    Drain,
    /// Be gone, and begin anew after a while.
    Crash,
    /// A backend's second self dials, as after a change of network.
    Double,
    /// A backend is updated: a new process comes before the old one leaves.
    Roll,
}

pub(super) struct Levers {
    pub(super) gateway: UnboundedSender<Order>,
    pub(super) backends: [UnboundedSender<Order>; 2],
}

type Hand = Arc<Mutex<Option<UnboundedReceiver<Order>>>>;

pub(super) struct Hands {
    pub(super) gateway: Hand,
    pub(super) backends: [Hand; 2],
}

pub(super) fn levers() -> (Levers, Hands) {
    let pair = || {
        let (lever, hand) = unbounded_channel();
        (lever, Arc::new(Mutex::new(Some(hand))))
    };
    let [gateway, a, b] = [pair(), pair(), pair()];
    let levers = Levers { gateway: gateway.0, backends: [a.0, b.0] };
    (levers, Hands { gateway: gateway.1, backends: [a.1, b.1] })
}

fn take(hand: &Hand) -> UnboundedReceiver<Order> {
    hand.lock().unwrap_or_else(PoisonError::into_inner).take().expect("each host starts once")
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[derive(Clone)]
pub(super) struct Gateway {
    pub(super) token: Token,
    config: Config,
    hand: Hand,
}

impl Gateway {
    pub(super) fn new(hand: Hand) -> Self {
        let token = Token::generate();
        let admission = Admission::Keys { keys: vec![token.public()], file: None, made: None };
        let mut config =
            Config::new(CertificateSource::SelfSigned { names: Vec::new(), kept: None }, admission);
        config.limits.head = LIMIT;
        config.limits.stall = LIMIT;
        config.limits.connections = Some(1000);
        config.limits.connections_per_address = Some(1000);
        Self { token, config, hand }
    }

    pub(super) async fn run(self) -> Outcome {
        let mut hand = take(&self.hand);
        loop {
            let (trigger, shutdown) = channel();
            let (shard, _) = Shard::alone(&self.config, shutdown).expect("a gateway");
            let listener = TcpListener::bind((ANY, 443)).await?;
            let mut connections = JoinSet::new();
            let order = loop {
                select! {
                    accepted = listener.accept() => {
                        let (socket, peer) = accepted?;
                        connections.spawn(serve(shard.clone(), socket, peer));
                    }
                    Some(_) = connections.join_next() => {}
                    Some(order) = hand.recv() => break order,
                }
            };
            drop(listener);
            if matches!(order, Order::Drain) {
                trigger.advance(Phase::Draining);
                let drained = async { while connections.join_next().await.is_some() {} };
                let _ = timeout(Duration::from_secs(5), drained).await;
            }
            connections.shutdown().await;
            sleep(Duration::from_millis(500)).await;
        }
    }
}

#[derive(Clone)]
pub(super) struct Backend {
    token: Token,
    dice: Dice,
    ledger: Ledger,
    hand: Hand,
}

impl Backend {
    pub(super) fn new(token: Token, dice: Dice, ledger: Ledger, hand: Hand) -> Self {
        Self { token, dice, ledger, hand }
    }

    pub(super) async fn run(mut self) -> Outcome {
        let mut hand = take(&self.hand);
        let network = Cutting(Arc::new(Mutex::new(self.dice.split())));
        let mut who = self.process();
        let mut leaving = JoinSet::new();
        let mut guest = self.guest(&who, &network);
        while let Some(order) = hand.recv().await {
            match order {
                Order::Drain => {
                    guest.stop();
                    let ended = timeout(LONGEST, guest.ended()).await;
                    if !matches!(ended, Ok(Ok(()))) {
                        self.ledger.find(format!("a backend told to stop: {ended:?}"));
                    }
                    sleep(self.dice.millis(1000)).await;
                    who = self.process();
                    guest = self.guest(&who, &network);
                }
                Order::Crash => {
                    drop(guest);
                    sleep(self.dice.millis(1000)).await;
                    who = self.process();
                    guest = self.guest(&who, &network);
                }
                Order::Double => {
                    let double = self.guest(&who, &network);
                    let old = std::mem::replace(&mut guest, double);
                    sleep(self.dice.millis(3000)).await;
                    drop(old);
                }
                Order::Roll => {
                    who = self.process();
                    let new = self.guest(&who, &network);
                    let old = std::mem::replace(&mut guest, new);
                    sleep(Duration::from_secs(1)).await;
                    old.stop();
                    leaving.spawn(timeout(LONGEST, old.ended()));
                }
            }
        }
        std::future::pending().await
    }

    fn process(&self) -> Process {
        let address = Address { host: "gateway".to_owned(), port: 443 };
        let mut config = ClientConfig::new(address);
        config.trust = Trust::Insecure;
        config.token = Some(self.token.clone());
        process(config)
    }

    fn guest(&self, process: &Process, network: &Cutting) -> Guest {
        let ledger = self.ledger.clone();
        let answer = service(move |request: Request<Body>| answer(request, ledger.clone()));
        Guest::start(process, network.clone(), answer)
    }
}

/// Answers `/ID/KIND/SIZE`.
async fn answer(request: Request<Body>, ledger: Ledger) -> Result<Response<Paced>, String> {
    let path = request.uri().path().to_owned();
    let mut parts = path.split('/').skip(1);
    let mut number = || parts.next().and_then(|text| text.parse::<u64>().ok());
    let (Some(id), Some(kind), Some(size)) = (number(), number(), number()) else {
        return Err(format!("{path} is no request of ours"));
    };
    ledger.runs(id);
    let size = size as usize;
    let mut body = Paced { id, sent: 0, size, pause: None, exact: false };
    match kind {
        SIZED | HURRIED => body.exact = true,
        LATE => sleep(Duration::from_millis(size as u64)).await,
        ECHO => {
            let got = request.into_body().collect().await.map_err(|err| err.to_string())?;
            if got.to_bytes() != pattern(id, 0, size) {
                ledger.find(format!(
                    "request {id} has another body, and its service took it for whole"
                ));
            }
        }
        _ => body.pause = Some(Box::pin(sleep(Duration::from_millis(20)))),
    }
    let exact = body.exact;
    let mut response = Response::new(body);
    if exact {
        response.headers_mut().insert(CONTENT_LENGTH, size.into());
    }
    Ok(response)
}

/// What a request asks for, as a number in its path.
pub(super) const SIZED: u64 = 0;
pub(super) const PACED: u64 = 1;
pub(super) const LATE: u64 = 2;
pub(super) const ECHO: u64 = 3;
pub(super) const HURRIED: u64 = 4;

/// A body in chunks, with pauses between them or without.
struct Paced {
    id: u64,
    sent: usize,
    size: usize,
    pause: Option<Pin<Box<Sleep>>>,
    exact: bool,
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent == self.size {
            return Poll::Ready(None);
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            *pause = Box::pin(sleep(Duration::from_millis(20)));
        }
        let count = CHUNK.min(self.size - self.sent);
        let data = pattern(self.id, self.sent, count);
        self.sent += count;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.exact {
            SizeHint::with_exact((self.size - self.sent) as u64)
        } else {
            SizeHint::new()
        }
    }
}

/// Simulated TCP, a third of whose connections is cut at some byte.
#[derive(Clone)]
struct Cutting(Arc<Mutex<Dice>>);

impl Network for Cutting {
    type Io = Fragile;

    async fn connect(&self, gateway: &Address) -> io::Result<(Fragile, SocketAddr)> {
        let address = SocketAddr::new(turmoil::lookup(gateway.host.as_str()), gateway.port);
        let stream = TcpStream::connect(address).await?;
        let mut dice = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Some break within the handshake, some after many requests.
        let reach = [2_000, 20_000, 300_000][dice.below(3) as usize];
        let left = dice.one_in(3).then(|| dice.below(reach));
        Ok((Fragile { stream: Some(stream), left }, address))
    }
}

/// A connection that breaks after so many bytes, both ways together.
struct Fragile {
    stream: Option<TcpStream>,
    left: Option<u64>,
}

impl Fragile {
    fn whole(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if self.left == Some(0) {
            self.stream = None;
        }
        self.stream.as_mut().map(Pin::new).ok_or(io::ErrorKind::ConnectionReset.into())
    }

    fn carried(&mut self, bytes: usize) {
        self.left = self.left.map(|left| left.saturating_sub(bytes as u64));
    }
}

impl AsyncRead for Fragile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = self.whole()?.poll_read(cx, buf);
        self.carried(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Fragile {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.left.map_or(buf.len(), |left| buf.len().min(left as usize));
        let written = ready!(self.whole()?.poll_write(cx, &buf[..most]))?;
        self.carried(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole()?.poll_shutdown(cx)
    }
}

const CHUNK: usize = 3000;
/// The gateway's for a head, and for a response that stands still.
pub(super) const LIMIT: Duration = Duration::from_secs(20);
/// Nothing takes longer: a late response, its limits, and a silence noticed.
pub(super) const LONGEST: Duration = Duration::from_secs(70);
