//! An EventSource takes a page for the end, and a broken connection for a reason to come again.

use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use ptth_client::config::{OriginAddress, OriginOptions};
use ptth_client::origin::Origin;
use ptth_server::config::{NoBackend, Route, Trusted};
use ptth_server::lab::{serve_h1, serve_h2};
use ptth_test::peer::*;
use ptth_test::service::service;
use ptth_test::{H1, Lab, Peer};
use tokio::io::{DuplexStream, duplex};
use tokio::net::TcpListener;

/// RST_STREAM's code where there is no response.
const INTERNAL_ERROR: u32 = 2;
const EVENTS: &str = "text/event-stream";

fn h1(method: &str, accept: &str) -> String {
    format!(
        "{method} / HTTP/1.1\r\nHost: example.test\r\nAccept: {accept}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn h2(method: &str, accept: &str) -> Vec<u8> {
    let accept = [("accept", accept)];
    headers(1, END_STREAM, &[&request(method, "/")[..], &accept].concat())
}

/// The status that a visitor gets, whichever protocol it speaks; 0 if there is no response. `beside` goes on
/// meanwhile. Not under the harness's deadline, which is shorter than the gateway's own.
async fn told(
    lab: &mut Lab,
    over_h2: bool,
    ask: (&str, &str),
    beside: impl Future<Output = ()>,
) -> u16 {
    let status = async {
        if !over_h2 {
            let mut visitor = lab.h1();
            visitor.send(h1(ask.0, ask.1)).await;
            return visitor.head().await.0;
        }
        let mut visitor = lab.h2(&[]).await;
        visitor.send(h2(ask.0, ask.1)).await;
        while let Some(frame) = visitor.next().await {
            match frame.kind {
                HEADERS => return frame.field(":status").parse().expect("a status"),
                RST_STREAM => {
                    assert_eq!(frame.code(), INTERNAL_ERROR);
                    // One stream is not the connection.
                    visitor.ping().await;
                    return 0;
                }
                _ => {}
            }
        }
        panic!("the connection ended");
    };
    tokio::select! {
        status = status => status,
        () = async { beside.await; pending().await } => 0,
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_source_gets_no_page_where_there_is_no_backend() {
    for (page, events) in [(502, 0), (503, 0), (404, 404)] {
        let mut lab = Lab::with(|config| {
            let mut route = Route::new("all", vec!["*".parse().expect("a pattern")]);
            route.no_backend = NoBackend::Status(StatusCode::from_u16(page).expect("a status"));
            config.routes = vec![route];
        });
        for over_h2 in [false, true] {
            for (method, accept, expected) in [
                ("GET", EVENTS, events),
                ("GET", "*/*", page),
                ("GET", "text/html, text/event-stream", page),
                ("POST", EVENTS, page),
            ] {
                let told = told(&mut lab, over_h2, (method, accept), pending()).await;
                assert_eq!(told, expected, "{method} {accept} h2={over_h2}");
            }
        }
    }
}

/// A proxy in front would make a page of it, and may take this gateway for dead.
#[tokio::test(start_paused = true)]
async fn a_trusted_proxy_gets_its_page() {
    let trusted = Trusted::parse(&["198.18.0.0/15"]).expect("the addresses of the lab's visitors");
    let mut lab = Lab::with(|config| config.trusted = trusted);
    for over_h2 in [false, true] {
        let (near, far) = duplex(64 * 1024);
        let visitor = Arc::new(lab.visitor());
        if over_h2 {
            lab.spawn(serve_h2(visitor, near));
            let mut proxy = Peer::asking(far, &[]).await;
            proxy.send(h2("GET", EVENTS)).await;
            assert!(matches!(proxy.outcome(1).await, Outcome::Response(502, _)));
        } else {
            lab.spawn(serve_h1(visitor, near));
            let mut proxy = H1::over(far);
            proxy.send(h1("GET", EVENTS)).await;
            assert_eq!(proxy.answer().await.status, 502);
        }
    }
}

/// What a backend does with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    Reset,
    Close,
    Nothing,
    Break,
    Answer(u16),
}

impl Does {
    async fn with_the_request(self, mut backend: Peer<DuplexStream>) {
        let stream = backend.request().await.expect("the tunnel lives").stream;
        let bytes = match self {
            Self::Close => return,
            Self::Nothing => Vec::new(),
            Self::Reset => reset(stream, INTERNAL_ERROR),
            Self::Break => [headers(stream, 0, &[(":status", "200")]), reset(stream, 0)].concat(),
            Self::Answer(status) => {
                headers(stream, END_STREAM, &[(":status", &status.to_string())])
            }
        };
        backend.send(bytes).await;
        while backend.next().await.is_some() {}
    }
}

/// And what the origin says crosses, whatever it says.
#[tokio::test(start_paused = true)]
async fn an_event_source_gets_no_page_where_the_tunnel_fails() {
    for (does, page, events) in [
        (Does::Reset, 502, 0),
        (Does::Close, 502, 0),
        (Does::Nothing, 504, 0),
        (Does::Break, 502, 0),
        (Does::Answer(502), 502, 502),
        (Does::Answer(503), 503, 503),
        (Does::Answer(504), 504, 504),
    ] {
        for over_h2 in [false, true] {
            for (accept, expected) in [(EVENTS, events), ("*/*", page)] {
                let mut lab = Lab::default();
                let backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 1000)]).await;
                let does = does.with_the_request(backend);
                let told = told(&mut lab, over_h2, ("GET", accept), does).await;
                assert_eq!(told, expected, "{accept} h2={over_h2}");
            }
        }
    }
}

/// 503 for the others, when all that a backend takes is under way.
#[tokio::test(start_paused = true)]
async fn an_event_source_gets_no_page_where_all_is_busy() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    let mut first = lab.h1();
    first.send(h1("GET", "*/*")).await;
    assert!(backend.request().await.is_some());
    lab.spawn(async move { while backend.next().await.is_some() {} });
    for over_h2 in [false, true] {
        for (accept, expected) in [(EVENTS, 0), ("*/*", 503)] {
            let told = told(&mut lab, over_h2, ("GET", accept), pending()).await;
            assert_eq!(told, expected, "{accept} h2={over_h2}");
        }
    }
}

/// Our client tells a gateway nothing, where its origin isn't there or its service fails.
#[tokio::test]
async fn an_event_source_gets_no_page_of_the_clients() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let port = closed.local_addr().expect("bound").port();
    drop(closed);
    let address = OriginAddress::Http { host: "127.0.0.1".to_owned(), port };
    let failing = service(async |_| Err::<Response<Full<Bytes>>, _>("it fails"));
    let interim = service(async |_| {
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = StatusCode::EARLY_HINTS;
        Ok::<_, &str>(response)
    });
    let unavailable = service(async |_| {
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok::<_, &str>(response)
    });
    for (accept, expected) in [(EVENTS, 0), ("*/*", 502)] {
        let mut lab = Lab::default();
        let origin = Origin::new(address.clone(), &OriginOptions::default()).unwrap();
        let peers = [
            lab.client(origin, &[]).await.0,
            lab.client(failing.clone(), &[]).await.0,
            lab.client(interim.clone(), &[]).await.0,
        ];
        for mut gateway in peers {
            gateway.send(h2("GET", accept)).await;
            let status = match gateway.outcome(1).await {
                Outcome::Response(status, _) => status,
                Outcome::Reset(0, INTERNAL_ERROR) => 0,
                other => panic!("{other:?}"),
            };
            assert_eq!(status, expected, "{accept}");
        }
        // What a service says is the origin's own word.
        let (mut gateway, _ended) = lab.client(unavailable.clone(), &[]).await;
        gateway.send(h2("GET", accept)).await;
        assert!(matches!(gateway.outcome(1).await, Outcome::Response(503, _)), "{accept}");
    }
}
