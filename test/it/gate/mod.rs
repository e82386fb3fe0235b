//! The gate of a route, through whole gateways that read their configuration from a file.

mod body;
mod field;
mod forward;
mod life;
mod password;
mod quota;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use ptth_client::Body;
use ptth_link::token::Token;
use ptth_test::routes::{Filed, client, until_serving};
use ptth_test::service::service;
use ptth_test::{Answer, Ask, Backend, Dialect, Folder, GatewayBox};
use tokio::sync::Semaphore;

/// A request as the origin saw it.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    fields: HeaderMap,
    /// `None`: its body broke off.
    body: Option<usize>,
}

impl Seen {
    fn values(&self, name: &str) -> Vec<&str> {
        self.fields.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

/// A gateway with one route and its backend.
struct World {
    filed: Filed,
    folder: Folder,
    token: Token,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Lets requests of `/wait` go on, one for each permit.
    go: Arc<Semaphore>,
    _backend: Option<Backend>,
}

impl World {
    /// One whose route has these lines for itself, and these in its gate.
    async fn new(route: &str, gate: &str) -> Self {
        let mut world = Self::without_backend(route, gate);
        world.serve().await;
        world
    }

    fn without_backend(route: &str, gate: &str) -> Self {
        let (folder, token) = (Folder::new(), Token::generate());
        folder.write("keys", token.public().to_string());
        folder.write("secret", "pâss:wörd\n");
        folder.write("users", password::USERS);
        let file = folder.write("2ptth.toml", text(route, gate));
        let (seen, go) = (Arc::default(), Arc::new(Semaphore::new(0)));
        Self { filed: Filed::start(&file), folder, token, seen, go, _backend: None }
    }

    async fn serve(&mut self) {
        let (seen, go) = (self.seen.clone(), self.go.clone());
        let answer = move |request| answer(request, seen.clone(), go.clone());
        let config = client(self.gateway(), &self.token);
        self._backend = Some(Backend::start(config, service(answer)));
        until_serving(self.gateway(), "example.test", 1).await;
    }

    fn gateway(&self) -> &GatewayBox {
        &self.filed.gateway
    }

    /// Has the gateway read another file.
    async fn change(&self, route: &str, gate: &str) {
        self.folder.write("2ptth.toml", text(route, gate));
        self.filed.reread().await;
    }

    async fn ask(&self, dialect: Dialect, ask: &Ask) -> Answer {
        dialect.ask(self.gateway(), ask).await
    }

    async fn get(&self, fields: &[(&'static str, &str)]) -> Answer {
        let ask = fields.iter().fold(Ask::get("/"), |ask, (name, value)| ask.with(name, value));
        self.ask(Dialect::H1, &ask).await
    }

    /// What came to the origin since the last call.
    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn text(route: &str, gate: &str) -> String {
    format!(
        "listen = '127.0.0.1:0'\nself_signed = true\ntrusted_proxies = '127.0.0.1'\n\
         [[route]]\nname = 'a'\nhosts = ['example.test', 'other.test']\nallow = [{{ key_file = 'keys' }}]\n{route}\n{gate}\n"
    )
}

async fn answer(
    request: Request<Body>,
    seen: Arc<Mutex<Vec<Seen>>>,
    go: Arc<Semaphore>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
    let mut note = Seen { method, fields: head.headers, body: None };
    let mut response = Response::builder().header("server", "secret/1").header("x-own", "1");
    if path == "/early" {
        response = response.status(201);
        seen.lock().unwrap().push(note);
        return Ok(response.body(Endless(Some("begun")).boxed()).unwrap());
    }
    note.body = body.collect().await.ok().map(|body| body.to_bytes().len());
    seen.lock().unwrap().push(note);
    if path == "/wait" {
        go.acquire().await.unwrap().forget();
    }
    let content = if path == "/large" { vec![b'x'; 1 << 18] } else { b"fine".to_vec() };
    Ok(response.body(http_body_util::Full::from(content).boxed()).unwrap())
}

/// A body that begins and doesn't end.
struct Endless(Option<&'static str>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(text) => Poll::Ready(Some(Ok(Frame::data(text.into())))),
            None => Poll::Pending,
        }
    }
}

/// That it is the page of a failure of that code.
fn is_page(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.text().contains(code), "{}", answer.text());
    assert!(answer.field("proxy-status").contains(code));
}

/// Allow and deny: by the address that a trusted proxy names; whoever isn't let in reaches nothing.
#[tokio::test]
async fn addresses_are_let_in_and_kept_out() {
    let gate = "[route.gate]\nallow = ['203.0.113.0/24', '2001:db8::/32']\ndeny = '203.0.113.8'";
    let world = World::new("", gate).await;
    for dialect in Dialect::BOTH {
        for (from, fine) in [
            ("203.0.113.7", true),
            ("203.0.113.8", false),
            ("203.0.114.7", false),
            ("2001:db8:1::1", true),
            ("::ffff:203.0.113.7", true),
            ("2001:db9::1", false),
        ] {
            let ask = Ask::get("/").with("x-forwarded-for", from);
            let answer = world.ask(dialect, &ask).await;
            match fine {
                true => assert_eq!(answer.text(), "fine", "{dialect:?} {from}"),
                false => is_page(&answer, 403, "E-GATE-ADDRESS"),
            }
            assert_eq!(world.seen().len(), usize::from(fine), "{dialect:?} {from}");
        }
        // The proxy's own.
        is_page(&world.ask(dialect, &Ask::get("/")).await, 403, "E-GATE-ADDRESS");
    }
}

#[tokio::test]
async fn a_network_over_its_rate_is_told_when_to_come_again() {
    let gate = "[route.gate]\nrate = { requests = 2, per = '1h', burst = 3 }";
    let world = World::new("", gate).await;
    for dialect in Dialect::BOTH {
        let (own, twin) = match dialect {
            Dialect::H1 => ("2001:db8::1", "2001:db8::2"),
            Dialect::H2 => ("192.0.2.1", "192.0.2.1"),
        };
        for _ in 0..3 {
            let ask = Ask::get("/").with("x-forwarded-for", own);
            assert_eq!(world.ask(dialect, &ask).await.status, 200);
        }
        let refused = world.ask(dialect, &Ask::get("/").with("x-forwarded-for", twin)).await;
        is_page(&refused, 429, "E-GATE-RATE");
        let seconds: u64 = refused.field("retry-after").parse().unwrap();
        assert!((1790..=1800).contains(&seconds), "{seconds}");
        let other = Ask::get("/").with("x-forwarded-for", "198.51.100.1");
        assert_eq!(world.ask(dialect, &other).await.status, 200);
        assert_eq!(world.seen().len(), 4);
    }
    // Its other host has no bucket of its own.
    let text = "GET / HTTP/1.1\r\nHost: other.test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    assert_eq!(ptth_test::H1::ask(world.gateway(), text).await.status, 429);
}

/// What upgrades and what is delivered later come by the same gate.
#[tokio::test]
async fn upgrades_and_webhooks_pass_the_gate() {
    let gate = "[route.gate]\nbasic = { user = 'team', password_file = 'secret' }";
    let world = World::new("respond = 202", gate).await;
    let upgrade = "GET / HTTP/1.1\r\nHost: example.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    is_page(&ptth_test::H1::ask(world.gateway(), upgrade).await, 401, "E-GATE-PASSWORD");
    for dialect in Dialect::BOTH {
        let refused = world.ask(dialect, &Ask::post("/hook", "x")).await;
        is_page(&refused, 401, "E-GATE-PASSWORD");
    }
    assert!(world.seen().is_empty());
    let fine = Ask::post("/hook", "x").with("authorization", password::RIGHT);
    assert_eq!(world.ask(Dialect::H1, &fine).await.status, 202);
}
