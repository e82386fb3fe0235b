//! Visitors who take back what they asked for, a million times, in every way that there is.
//!
//! Those who keep to a visitor's limits keep their connections, those who don't are told to calm down and
//! come again; the tunnel is the same one all the while, and nobody else sees anything but 200.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use ptth_client::Body;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::{Chunks, Dice, H1, Lab, Peer, soon};
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::{JoinSet, yield_now};

use super::{ask, until};

/// What a visitor may ask for: an answer, none, one that has begun, and a large one.
const PATHS: [&str; 4] = ["/", "/never", "/endless", "/large"];

async fn answer(request: Request<Body>) -> Response<Chunks> {
    let one = |text| Chunks::of([Bytes::from_static(text)]);
    Response::new(match request.uri().path() {
        "/never" => std::future::pending().await,
        "/endless" => one(b"begun").endless(),
        "/large" => one(&[7; 200_000]),
        _ => one(b"ok"),
    })
}

/// A visitor who opens streams and resets them.
struct Restless {
    peer: Peer<DuplexStream>,
    next: u32,
    dice: Dice,
}

/// How a visitor's connection came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Left {
    /// By himself, and the gateway would have gone on.
    Alone,
    /// He was told to calm down.
    Calmed,
}

impl Restless {
    fn open(&mut self, path: &str) -> (u32, Vec<u8>) {
        let stream = self.next;
        self.next += 2;
        (stream, headers(stream, END_STREAM, &get(path)))
    }

    /// HEADERS and RST_STREAM in one write: what was taken back at once costs the tunnel nothing.
    fn pairs(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            let (stream, head) = self.open("/never");
            bytes.extend([head, reset(stream, 8)].concat());
        }
        bytes
    }

    /// Opens streams, waits for the head of each, and resets all.
    async fn seen(&mut self, count: usize) {
        let mut streams = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..count {
            let (stream, head) = self.open("/endless");
            streams.push(stream);
            bytes.extend(head);
        }
        self.peer.send(bytes).await;
        for _ in 0..count {
            let head = soon("a head", self.peer.request()).await.expect("the gateway goes on");
            assert_eq!(head.field(":status"), "200");
        }
        let resets = streams.into_iter().map(|stream| reset(stream, 8));
        self.peer.send(resets.collect::<Vec<_>>().concat()).await;
    }

    /// Opens streams and resets each a little later, wherever it is by then.
    async fn scattered(&mut self, count: usize) {
        let mut open = Vec::new();
        for _ in 0..count {
            let path = PATHS[self.dice.below(4) as usize];
            let (stream, head) = self.open(path);
            open.push(stream);
            self.peer.send(head).await;
            for _ in 0..self.dice.below(4) {
                yield_now().await;
            }
            if self.dice.one_in(2) {
                let stream = open.swap_remove(self.dice.below(open.len() as u64) as usize);
                self.peer.send(reset(stream, 8)).await;
            }
        }
        let resets = open.into_iter().map(|stream| reset(stream, 8));
        self.peer.send(resets.collect::<Vec<_>>().concat()).await;
    }

    /// Has answers between, so that he is no worse than a browser.
    async fn browses(&mut self, count: usize) {
        for _ in 0..count / 3 {
            self.seen(3).await;
            let (stream, head) = self.open("/");
            self.peer.send(head).await;
            assert_eq!(self.peer.outcome(stream).await, Outcome::Response(200, b"ok".to_vec()));
        }
    }

    async fn is_welcome(&mut self) -> Left {
        self.peer.ping().await;
        Left::Alone
    }

    async fn is_calmed(&mut self) -> Left {
        assert_eq!(self.peer.end().await, Some(CALM), "told to calm down");
        Left::Calmed
    }

    /// One connection's life, and how many resets the gateway got.
    async fn live(mut self) -> (usize, Left) {
        match self.dice.below(7) {
            0 => {
                for _ in 0..90 {
                    let pairs = self.pairs(10);
                    self.peer.send(pairs).await;
                    self.peer.ping().await;
                }
                (900, self.is_welcome().await)
            }
            1 => {
                // Rapid reset: the gateway may close before it has read them all.
                let pairs = self.pairs(400);
                self.peer.send(pairs).await;
                (400, self.is_calmed().await)
            }
            2 => {
                self.seen(90).await;
                (90, self.is_welcome().await)
            }
            3 => {
                self.seen(60).await;
                self.seen(60).await;
                (120, self.is_calmed().await)
            }
            4 => {
                // Rapid or not: that depends on who is polled when.
                self.scattered(90).await;
                (90, Left::Alone)
            }
            5 => {
                self.browses(600).await;
                (600, self.is_welcome().await)
            }
            _ => {
                // Closing takes back whatever is open.
                let heads: Vec<_> = (0..90).map(|n| self.open(PATHS[n % 4]).1).collect();
                self.peer.send(heads.concat()).await;
                for _ in 0..self.dice.below(8) {
                    yield_now().await;
                }
                (90, Left::Alone)
            }
        }
    }
}

/// Somebody else, who asks when he is told to, and tells when he was answered.
struct Other {
    wanted: Sender<()>,
    answered: Arc<AtomicUsize>,
}

impl Other {
    /// Adds him to `others`: `ask` asks once, and panics if the answer isn't what it should be.
    fn join<V, F>(
        others: &mut JoinSet<()>,
        mut visitor: V,
        ask: impl Fn(V) -> F + Send + 'static,
    ) -> Self
    where
        V: Send + 'static,
        F: Future<Output = V> + Send,
    {
        let (wanted, mut turns) = channel(1000);
        let answered = Arc::new(AtomicUsize::new(0));
        let count = answered.clone();
        others.spawn(async move {
            while turns.recv().await.is_some() {
                visitor = ask(visitor).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { wanted, answered }
    }
}

async fn ask_h1(mut visitor: H1<DuplexStream>) -> H1<DuplexStream> {
    let answer = ask(&mut visitor).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    visitor
}

async fn ask_h2((mut visitor, stream): (Peer<DuplexStream>, u32)) -> (Peer<DuplexStream>, u32) {
    visitor.send(headers(stream, END_STREAM, &get("/"))).await;
    assert_eq!(visitor.outcome(stream).await, Outcome::Response(200, b"ok".to_vec()));
    (visitor, stream + 2)
}

/// Visitors come, `RESTLESS` at a time, until they have taken back `count` requests.
async fn resets(count: usize) {
    let (mut dice, _told) = Dice::told(3);
    let mut lab = Lab::serving(Function(answer)).await;
    let tunnel = lab.pool.all()[0].clone();
    let mut asking = JoinSet::new();
    let others = [
        Other::join(&mut asking, lab.h1(), ask_h1),
        Other::join(&mut asking, (lab.h2(&[]).await, 1), ask_h2),
    ];
    let (mut sent, mut calmed, mut lives) = (0, 0, 0);
    let mut running = JoinSet::new();
    while sent < count {
        while running.len() < RESTLESS {
            let peer = lab.h2(&[]).await;
            running.spawn(Restless { peer, next: 1, dice: dice.split() }.live());
        }
        let (resets, left) = running.join_next().await.expect("a visitor").expect("a visitor");
        (sent, calmed) = (sent + resets, calmed + usize::from(left == Left::Calmed));
        // Each of the others has been answered as often by now, and asks as often again meanwhile.
        until(|| others.iter().all(|it| it.answered.load(Ordering::Relaxed) == lives)).await;
        lives += TURNS;
        others.iter().for_each(|it| (0..TURNS).for_each(|_| it.wanted.try_send(()).expect("room")));
        assert!(asking.try_join_next().is_none(), "somebody else saw an error");
        assert_eq!(lab.pool.all().first().map(|it| it.id), Some(tunnel.id), "the tunnel lives");
    }
    drop(running);
    until(|| others.iter().all(|it| it.answered.load(Ordering::Relaxed) == lives)).await;
    until(|| tunnel.in_flight() == 0).await;
    assert_eq!(lab.pool.all().len(), 1);
    assert!(calmed > 0 && !tunnel.is_draining());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_resets_end_no_tunnel_and_no_other_visitor_sees_an_error() {
    resets(10_000).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "heavy: run by .ci/run in release"]
async fn a_million_resets_end_no_tunnel_and_no_other_visitor_sees_an_error() {
    resets(1_000_000).await;
}

/// What each of the others asks during one visitor's life.
const TURNS: usize = 20;
/// Visitors side by side.
const RESTLESS: usize = 10;
/// ENHANCE_YOUR_CALM
const CALM: u32 = 11;
