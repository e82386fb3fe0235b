//! An authenticator of the operator's, which is asked about each request.
//!
//! It stands in for oauth2-proxy, with the requests and responses of both its modes: for nginx's auth_request (202 or
//! 401), and for Traefik's forwardAuth (202 or a redirect to its page of login).

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::Full;
use ptth_test::origin::{read_head, until_closed};
use ptth_test::upgraded::websocket;
use ptth_test::{Ask, Dialect, H1, OriginBox};
use tokio::io::AsyncWriteExt;

use super::{World, is_page};

/// A question as the authenticator got it.
type Asked = (Method, String, HeaderMap);

struct Authenticator {
    server: OriginBox,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Authenticator {
    async fn start() -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let notes = asked.clone();
        let server = OriginBox::http(move |request| {
            let (head, body) = request.into_parts();
            assert!(http_body::Body::is_end_stream(&body), "a question has no body");
            let said = |name: &str| {
                head.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
            };
            let known = said("cookie").contains("_oauth2_proxy=good");
            let proxied = head.uri.path() == "/";
            let mut response = Response::builder();
            let mut body = Bytes::new();
            if known {
                response = response
                    .status(202)
                    .header("x-auth-request-user", "ann")
                    .header("x-auth-request-groups", "a")
                    .header("x-auth-request-groups", "b")
                    .header("gap-auth", "ann@example.test");
            } else if proxied {
                let to = format!("/oauth2/start?rd={}", said("x-forwarded-uri"));
                response = response
                    .status(302)
                    .header("location", to)
                    .header("set-cookie", "_oauth2_proxy_csrf=1; Path=/; HttpOnly; Secure")
                    .header("set-cookie", "other=2");
                body = "<a href=\"/oauth2/start\">Found</a>.".into();
            } else {
                response = response.status(401).header("www-authenticate", "Bearer realm=\"x\"");
                response = response.header("2ptth-url", "forged");
                body = "Unauthorized\n".into();
            }
            notes.lock().unwrap().push((head.method, head.uri.to_string(), head.headers));
            let response = response.body(Full::new(body)).unwrap();
            async move { response }
        })
        .await;
        Self { server, asked }
    }

    fn gate(&self, path: &str, more: &str) -> String {
        format!(
            "[route.gate]\nforward = {{ url = 'http://{}{path}', copy = ['x-auth-request-user', 'X-Auth-Request-Groups', 'x-absent']{more} }}",
            self.server.address
        )
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

const GOOD: &str = "a=b; _oauth2_proxy=good";

#[tokio::test]
async fn an_authenticator_lets_a_request_pass_and_adds_its_fields() {
    let authenticator = Authenticator::start().await;
    let world = World::new("", &authenticator.gate("/oauth2/auth?x=1", "")).await;
    for dialect in Dialect::BOTH {
        let ask = Ask::post("/page?q=1", vec![b'x'; 100])
            .with("cookie", GOOD)
            .with("x-auth-request-user", "root")
            .with("x-auth-request-user", "again")
            .with("x_auth_request_user", "by-cgi")
            .with("x-absent", "mine")
            .with("x-forwarded-uri", "/forged")
            .with("x_original_uri", "/forged")
            .with("accept", "text/html")
            .with("accept", "text/plain")
            .with("if-none-match", "\"1\"")
            .with("range", "bytes=0-1");
        assert_eq!(world.ask(dialect, &ask).await.text(), "fine", "{dialect:?}");
        let seen = world.seen().pop().unwrap();
        assert_eq!((seen.method.as_str(), seen.body), ("POST", Some(100)));
        assert_eq!(seen.values("x-auth-request-user"), ["ann"]);
        assert_eq!(seen.values("x-auth-request-groups"), ["a", "b"]);
        for gone in ["x_auth_request_user", "x-absent", "gap-auth"] {
            assert!(seen.values(gone).is_empty(), "{gone}");
        }
        assert_eq!(seen.values("if-none-match"), ["\"1\""], "the origin's");
        let [(method, target, fields)] = &authenticator.asked()[..] else { panic!("one question") };
        assert_eq!((method, target.as_str()), (&Method::GET, "/oauth2/auth?x=1"));
        let all = |name: &str| -> Vec<_> {
            fields.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
        };
        for (name, value) in [
            ("host", authenticator.server.address.to_string().as_str()),
            ("cookie", GOOD),
            ("x-forwarded-method", "POST"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "example.test"),
            ("x-forwarded-uri", "/page?q=1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-original-method", "POST"),
            ("x-original-uri", "/page?q=1"),
            ("x-original-url", "https://example.test/page?q=1"),
        ] {
            assert_eq!(all(name), [value], "{dialect:?} {name}");
        }
        assert_eq!(all("accept"), ["text/html", "text/plain"]);
        for gone in ["content-length", "if-none-match", "range", "x_original_uri"] {
            assert!(all(gone).is_empty(), "{gone}");
        }
    }
}

#[tokio::test]
async fn what_an_authenticator_answers_otherwise_is_the_visitors_answer() {
    let authenticator = Authenticator::start().await;
    let world = World::new("", &authenticator.gate("/", "")).await;
    for dialect in Dialect::BOTH {
        let answer = world.ask(dialect, &Ask::get("/page?q=1")).await;
        assert_eq!((answer.status, answer.complete), (302, true));
        assert_eq!(answer.field("location"), "/oauth2/start?rd=/page?q=1");
        assert_eq!(answer.fields.get_all("set-cookie").iter().count(), 2);
        assert_eq!(answer.text(), "<a href=\"/oauth2/start\">Found</a>.");
        let head = world.ask(dialect, &Ask::new("HEAD", "/page")).await;
        assert_eq!((head.status, head.body.len()), (302, 0));
    }
    // No body comes behind that head, where the next response begins.
    let mut visitor = H1::connect(world.gateway()).await;
    visitor.send("HEAD /page HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    assert_eq!(visitor.answer_to("HEAD").await.status, 302);
    visitor.send("GET /page HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 302);
    world.change("", &authenticator.gate("/oauth2/auth", "")).await;
    for dialect in Dialect::BOTH {
        let answer = world.ask(dialect, &Ask::get("/").with("cookie", "_oauth2_proxy=bad")).await;
        assert_eq!((answer.status, answer.text().as_str()), (401, "Unauthorized\n"));
        assert_eq!(answer.field("www-authenticate"), "Bearer realm=\"x\"");
        assert_eq!(answer.field("2ptth-url"), "", "a word of ours");
        assert_eq!(answer.field("proxy-status"), "", "it is no page of ours");
    }
    assert!(world.seen().is_empty());
}

/// An upgrade was a GET, and is asked about as one.
#[tokio::test]
async fn an_authenticator_is_asked_about_upgrades() {
    let authenticator = Authenticator::start().await;
    let world = World::new("", &authenticator.gate("/oauth2/auth", "")).await;
    for dialect in Dialect::BOTH {
        // The harness asks for a page first, where the dialect needs one.
        let refused = websocket(dialect, world.gateway(), &[]).await;
        assert!(refused.is_err(), "{dialect:?}");
        let asked = authenticator.asked();
        let (_, _, fields) = asked.last().expect("a question");
        assert_eq!(fields["x-forwarded-method"], "GET", "{dialect:?}");
        assert_eq!(fields["x-forwarded-uri"], "/up?grade");
    }
}

/// It hangs, closes, answers without end, or with what is no answer: 503, nothing reaches the origin, and the next
/// question is asked anew.
#[tokio::test]
async fn an_authenticator_that_gives_no_answer_lets_none_pass() {
    let long = format!("HTTP/1.1 403 No\r\ncontent-length: 300000\r\n\r\n{}", "x".repeat(300_000));
    let open = format!("HTTP/1.1 403 No\r\n\r\n{}", "x".repeat(70_000));
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(300_000));
    let answers = [
        "",
        "HTTP/1.1 200",
        "garbage\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 999 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 403 No\r\ncontent-length: 9\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        &long,
        &open,
        &head,
    ];
    let given = answers.map(str::to_owned);
    let server = OriginBox::raw(move |mut socket, number| {
        let answer = given.get(number).cloned();
        async move {
            read_head(&mut socket).await;
            match answer {
                Some(answer) => drop(socket.write_all(answer.as_bytes()).await),
                None => until_closed(&mut socket).await,
            }
        }
    })
    .await;
    let gate = format!(
        "[route.gate]\nforward = {{ url = 'http://{}/', timeout = '250ms' }}",
        server.address
    );
    let world = World::new("", &gate).await;
    for answer in answers.iter().chain(&["silence"]) {
        let refused = world.get(&[]).await;
        is_page(&refused, 503, "E-GATE-FORWARD");
        let short: String = answer.chars().take(60).collect();
        assert!(world.seen().is_empty(), "{short}");
    }
    drop(server);
    is_page(&world.get(&[]).await, 503, "E-GATE-FORWARD");
}

/// Only the head of a yes counts, however long its body is.
#[tokio::test]
async fn the_body_of_a_yes_is_not_read() {
    let server = OriginBox::raw(|mut socket, _| async move {
        read_head(&mut socket).await;
        let yes = "HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\nx-user: ann\r\n\r\nbegins";
        let _ = socket.write_all(yes.as_bytes()).await;
        until_closed(&mut socket).await;
    })
    .await;
    let gate = format!(
        "[route.gate]\nforward = {{ url = 'http://{}/', copy = 'x-user' }}",
        server.address
    );
    let world = World::new("", &gate).await;
    assert_eq!(world.get(&[("x-user", "me")]).await.text(), "fine");
    assert_eq!(world.seen().pop().unwrap().values("x-user"), ["ann"]);
}

/// Both checks: the password is the gate's, and the authenticator doesn't see it.
#[tokio::test]
async fn a_password_of_the_gate_is_not_shown_to_the_authenticator() {
    let authenticator = Authenticator::start().await;
    let basic = "\nbasic = { user = 'team', password_file = 'secret' }";
    let gate = authenticator.gate("/oauth2/auth", "") + basic;
    let world = World::new("", &gate).await;
    is_page(&world.get(&[("cookie", GOOD)]).await, 401, "E-GATE-PASSWORD");
    assert!(authenticator.asked().is_empty(), "what costs less comes first");
    let fine = world.get(&[("cookie", GOOD), ("authorization", super::password::RIGHT)]).await;
    assert_eq!(fine.text(), "fine");
    assert!(!authenticator.asked()[0].2.contains_key("authorization"));
}
