//! Visitors: each asks for things, one after the other, and checks what comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use ptth_test::Hello;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use turmoil::net::TcpStream;

use super::actors::{ECHO, HURRIED, LATE, LONGEST, PACED, SIZED};
use super::{Dice, Ledger, pattern};

/// At a time.
pub(super) const COUNT: u64 = 4;
/// Of each, one after the other.
const REQUESTS: u64 = 14;

pub(super) struct Visitor {
    number: u64,
    dice: Dice,
    ledger: Ledger,
}

/// A question, and the bytes that are the whole answer.
struct Question {
    id: u64,
    request: Request<Bytes>,
    answer: Bytes,
}

/// What came of it.
enum Outcome {
    Answer(u16, Bytes),
    /// No response, or one that visibly broke off.
    Failed,
}

impl Visitor {
    pub(super) fn new(number: u64, dice: Dice, ledger: Ledger) -> Self {
        Self { number, dice, ledger }
    }

    pub(super) async fn run(mut self) {
        for n in 0..REQUESTS {
            sleep(self.dice.millis(4000)).await;
            let id = self.number * 1_000_000 + n;
            let question = self.question(id);
            let leaves = self.dice.one_in(10).then(|| self.dice.millis(500));
            let speaks_h2 = self.dice.one_in(2);
            let begun = Instant::now();
            let asking = ask(speaks_h2, &question);
            let outcome = match leaves {
                // He loses patience; that is his right, and runs nothing twice.
                Some(after) => match timeout(after, asking).await {
                    Ok(outcome) => Some(outcome),
                    Err(_) => continue,
                },
                None => timeout(LONGEST, asking).await.ok(),
            };
            self.judge(&question, outcome, begun);
        }
    }

    fn question(&mut self, id: u64) -> Question {
        let (kind, size) = match self.dice.below(5) {
            SIZED => (SIZED, self.dice.below(200_000)),
            PACED => (PACED, self.dice.below(120_000)),
            LATE => (LATE, self.dice.below(8_000)),
            ECHO => (ECHO, self.dice.below(100_000)),
            _ => (HURRIED, self.dice.below(100)),
        };
        let body = if kind == ECHO { pattern(id, 0, size as usize) } else { Bytes::new() };
        let method = if kind == ECHO { Method::POST } else { Method::GET };
        let request = Request::builder()
            .method(method)
            .uri(format!("https://example.test/{id}/{kind}/{size}"))
            .body(body)
            .expect("a request");
        Question { id, request, answer: pattern(id, 0, size as usize) }
    }

    fn judge(&self, question: &Question, outcome: Option<Outcome>, begun: Instant) {
        let id = question.id;
        let what = question.request.uri();
        match outcome {
            None => self.ledger.find(format!("{what} hangs")),
            Some(Outcome::Failed) => self.ledger.write(|book| book.failed += 1),
            Some(Outcome::Answer(200, body)) => {
                if body != question.answer {
                    let (got, whole) = (body.len(), question.answer.len());
                    self.ledger.find(format!("{what}: {got} of {whole} bytes look complete"));
                }
                self.ledger.write(|book| {
                    book.complete += 1;
                    if !book.runs.contains_key(&id) {
                        book.findings.push(format!("{what} has an answer and never ran"));
                    }
                });
            }
            Some(Outcome::Answer(502..=504, _)) => self.ledger.write(|book| book.failed += 1),
            Some(Outcome::Answer(status, body)) => {
                let after = begun.elapsed();
                self.ledger.find(format!("{what}: {status} after {after:?}: {body:?}"));
            }
        }
    }
}

async fn connect(label: &[u8]) -> Option<TlsStream<TcpStream>> {
    let hello = Hello::offering(&[label]);
    let socket = TcpStream::connect(("gateway", 443)).await.ok()?;
    let connector = TlsConnector::from(Arc::new(hello.config()));
    connector.connect(hello.server_name(), socket).await.ok()
}

async fn ask(speaks_h2: bool, question: &Question) -> Outcome {
    let answer =
        if speaks_h2 { ask_h2(&question.request).await } else { ask_h1(&question.request).await };
    answer.map_or(Outcome::Failed, |(status, body)| Outcome::Answer(status, body))
}

async fn ask_h1(request: &Request<Bytes>) -> Option<(u16, Bytes)> {
    let stream = connect(b"http/1.1").await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let path = request.uri().path();
    let request = Request::builder()
        .method(request.method())
        .uri(path)
        .header("Host", "example.test")
        .body(Full::new(request.body().clone()));
    let response = sender.send_request(request.ok()?).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?;
    Some((status, body.to_bytes()))
}

async fn ask_h2(request: &Request<Bytes>) -> Option<(u16, Bytes)> {
    let stream = connect(b"h2").await?;
    let (sender, connection) = h2::client::handshake(stream).await.ok()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    let mut sender = sender.ready().await.ok()?;
    let end = request.body().is_empty();
    let (parts, body) = request.clone().into_parts();
    let (response, mut stream) = sender.send_request(Request::from_parts(parts, ()), end).ok()?;
    if !end {
        stream.send_data(body, true).ok()?;
    }
    let response = response.await.ok()?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        whole.extend_from_slice(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    Some((status, whole.into()))
}

/// Asks until it is answered: after chaos, and not for ever.
pub(super) async fn recovers(ledger: &Ledger) {
    let begun = Instant::now();
    for n in 0.. {
        let id = 900_000_000 + n;
        let uri = format!("https://example.test/{id}/{HURRIED}/10");
        let request = Request::get(uri).body(Bytes::new()).expect("a request");
        if let Ok(Some((200, _))) = timeout(LONGEST, ask_h2(&request)).await {
            return;
        }
        if begun.elapsed() > RECOVERY {
            return ledger.find(format!("no answer {RECOVERY:?} after the weather cleared"));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The longest pause between two dials, a silence to be noticed, and a handshake.
const RECOVERY: Duration = Duration::from_secs(60);
