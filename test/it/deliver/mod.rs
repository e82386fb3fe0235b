//! Webhooks: `respond` of a route answers at once and delivers later. The clock is paused: hours cost nothing.

mod end;
mod room;
mod taken;
mod tries;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use ptth_client::Body;
use ptth_server::config::{Config, Respond, Route};
use ptth_server::lab::{Counts, Outbox};
use ptth_server::lab::{Visitor, serve_h1, serve_h2};
use ptth_test::room::{Guest, Room, process};
use ptth_test::service::service;
use ptth_test::wire::Road;
use ptth_test::{Answer, H1, Peer};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Bytes of the largest body that the routes take.
const LIMIT: usize = 10_000;

/// A gateway with two routes that respond, `hooks.test` and `other.test`, and one that doesn't, `plain.test`.
struct Hooks {
    room: Room,
    visitors: JoinSet<()>,
    next: u8,
}

impl Hooks {
    fn new() -> Self {
        Self::with_limit(LIMIT)
    }

    fn with_limit(limit: usize) -> Self {
        let room = Room::with(|config| configure(config, limit));
        Self { room, visitors: JoinSet::new(), next: 0 }
    }

    fn outbox(&self) -> &Arc<Outbox> {
        &self.room.shard.outbox
    }

    fn counts(&self) -> Counts {
        self.outbox().counts()
    }

    /// Waits until nothing is kept any more.
    async fn until_empty(&self) {
        eventually("the outbox empties", async {
            while self.outbox().held().0 > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// The backend of all routes, with one tunnel, up.
    async fn backend(&self, answers: &[u16]) -> (Guest, UnboundedReceiver<Seen>) {
        let script: VecDeque<_> = answers.iter().map(|status| answer(*status)).collect();
        self.scripted(script).await
    }

    /// The same with these answers; after them it is 200.
    async fn scripted(
        &self,
        script: impl Into<VecDeque<Response<String>>>,
    ) -> (Guest, UnboundedReceiver<Seen>) {
        let script = Arc::new(Mutex::new(script.into()));
        let (tell, seen) = unbounded_channel();
        let origin = service(move |request: Request<Body>| {
            let (script, tell) = (script.clone(), tell.clone());
            async move {
                let next = script.lock().unwrap().pop_front();
                let _ = tell.send(Seen::read(request).await);
                Ok::<_, Infallible>(next.unwrap_or_else(|| answer(200)))
            }
        });
        let mut config = self.room.client_config();
        config.tunnels = 1;
        let guest = Guest::start(&process(config), self.room.network(Road::default()), origin);
        eventually("the tunnel", self.room.until_tunnels(1)).await;
        (guest, seen)
    }

    /// An address that nobody else has.
    fn address(&mut self) -> IpAddr {
        self.next += 1;
        Ipv4Addr::new(198, 51, 100, self.next).into()
    }

    fn visitor(&self, address: IpAddr) -> Arc<Visitor> {
        Arc::new(Visitor::new(&self.room.shard, address, None, Arc::default()))
    }

    fn h1(&mut self, address: IpAddr) -> H1<DuplexStream> {
        let (near, far) = duplex(64 * 1024);
        self.visitors.spawn(serve_h1(self.visitor(address), near));
        H1::over(far)
    }

    async fn h2(&mut self, address: IpAddr) -> Peer<DuplexStream> {
        let (near, far) = duplex(64 * 1024);
        self.visitors.spawn(serve_h2(self.visitor(address), near));
        Peer::asking(far, &[]).await
    }

    /// What a sender who is nobody else gets for `POST path` to `host`.
    async fn post(&mut self, host: &str, path: &str, body: &[u8]) -> Answer {
        let address = self.address();
        self.post_from(address, host, path, body).await
    }

    async fn post_from(&mut self, from: IpAddr, host: &str, path: &str, body: &[u8]) -> Answer {
        let mut visitor = self.h1(from);
        visitor.send(post(host, path, "", body)).await;
        visitor.answer().await
    }
}

fn configure(config: &mut Config, limit: usize) {
    let routes = ["hooks", "other", "plain"].map(|name| {
        let mut route = Route::new(name, vec![format!("{name}.test").parse().unwrap()]);
        let respond = Respond { status: StatusCode::ACCEPTED, limit };
        route.respond = (name != "plain").then_some(respond);
        route
    });
    config.routes = routes.into();
}

/// A request as bytes; `fields` end in CRLF each.
fn post(host: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{fields}\r\n");
    [head.as_bytes(), body].concat()
}

fn answer(status: u16) -> Response<String> {
    let mut response = Response::new("a few words".to_owned());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// One request as the backend saw it.
#[derive(Debug)]
struct Seen {
    path: String,
    fields: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
    at: Instant,
}

impl Seen {
    async fn read(request: Request<Body>) -> Self {
        let at = Instant::now();
        let (head, body) = request.into_parts();
        let whole = body.collect().await.expect("the whole body");
        let trailers = whole.trailers().cloned().unwrap_or_default();
        let body = whole.to_bytes().to_vec();
        Self { path: head.uri.path().to_owned(), fields: head.headers, body, trailers, at }
    }

    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn next(seen: &mut UnboundedReceiver<Seen>) -> Seen {
    eventually("a request at the origin", seen.recv()).await.expect("the backend lives")
}

/// Runs `future` on the paused clock, and panics if it hangs for longer than anything is kept.
async fn eventually<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(Duration::from_secs(2 * 24 * 3600), future).await {
        Ok(output) => output,
        Err(_) => panic!("stuck: {what}"),
    }
}
