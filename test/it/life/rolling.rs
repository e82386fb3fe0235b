//! Orderly ends: of backends one after the other, and of the gateway.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Response};
use ptth_client::Body;
use ptth_link::crypto;
use ptth_test::origin::read_head;
use ptth_test::process::{Gateway, Process};
use ptth_test::service::service;
use ptth_test::{Backend, GatewayBox, H1, Hello, OriginBox, connect_h2, soon};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Asks two hundred times a second until it is stopped; each second request has a body.
struct Load {
    asking: JoinSet<()>,
    asked: Arc<AtomicU32>,
}

impl Load {
    fn start(visitor: SendRequest<Bytes>) -> Self {
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let mut asking = JoinSet::new();
        asking.spawn(async move {
            let mut tick = interval(Duration::from_millis(5));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut running = JoinSet::new();
            loop {
                tokio::select! {
                    _ = tick.tick() => {
                        let n = count.fetch_add(1, Ordering::Relaxed);
                        running.spawn(ask(visitor.clone(), n));
                    }
                    Some(done) = running.join_next() => done.expect("each request succeeds"),
                }
            }
        });
        Self { asking, asked }
    }

    /// Waits until so many more were asked, and sees that none failed.
    async fn go_on(&mut self, more: u32) {
        let from = self.asked.load(Ordering::Relaxed);
        soon("the load", async {
            while self.asked.load(Ordering::Relaxed) < from + more {
                if let Some(done) = self.asking.try_join_next() {
                    done.expect("each request succeeds");
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

async fn ask(visitor: SendRequest<Bytes>, n: u32) {
    let body = Bytes::from(vec![b'x'; 3000]);
    let with_body = n % 2 == 1;
    let method = if with_body { Method::POST } else { Method::GET };
    let request = Request::builder().method(method).uri("https://example.test/").body(()).unwrap();
    let mut visitor = soon("room", visitor.ready()).await.unwrap();
    let (response, mut stream) = visitor.send_request(request, !with_body).unwrap();
    if with_body {
        stream.send_data(body.clone(), true).unwrap();
    }
    let response = soon("a response", response).await.unwrap();
    assert_eq!(response.status(), 200, "request {n}");
    let mut got = Vec::new();
    let mut incoming = response.into_body();
    while let Some(data) = soon("the body", incoming.data()).await {
        let data = data.expect("whole");
        let _ = incoming.flow_control().release_capacity(data.len());
        got.extend_from_slice(&data);
    }
    let expected: &[u8] = if with_body { &body } else { b"Transmission is possible!\n" };
    assert_eq!(got, expected, "request {n}");
}

#[tokio::test]
async fn a_rolling_restart_fails_no_request_of_two_hundred_a_second() {
    let gateway = GatewayBox::start();
    let mut tasks = JoinSet::new();
    let visitor = connect_h2(&gateway, &mut tasks).await;
    let mut old = Backend::demo(&gateway).await;
    let mut load = Load::start(visitor);
    for _ in 0..4 {
        let new = Backend::start(gateway.client_config(), ptth_client::demo::Demo);
        gateway.until_tunnels(4).await;
        load.go_on(50).await;
        old.stop();
        load.go_on(50).await;
        old.ended().await.expect("an orderly end");
        gateway.until_tunnels(2).await;
        load.go_on(50).await;
        old = new;
    }
}

/// The same with the real program, told by SIGTERM.
#[tokio::test]
async fn a_rolling_restart_of_the_real_client_fails_no_request() {
    let gateway = GatewayBox::start();
    let start = || {
        let arguments = ["--pin", &crypto::pin_text(&gateway.pin), &gateway.address.to_string()]
            .map(str::to_owned);
        Process::start("2ptth-client", &arguments, &[("TOKEN", &gateway.token.reveal())])
    };
    let mut tasks = JoinSet::new();
    let visitor = connect_h2(&gateway, &mut tasks).await;
    let mut old = start();
    gateway.until_tunnels(2).await;
    let mut load = Load::start(visitor);
    for _ in 0..2 {
        let new = start();
        gateway.until_tunnels(4).await;
        load.go_on(20).await;
        old.signal("TERM");
        load.go_on(50).await;
        let ended = old.ended().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        gateway.until_tunnels(2).await;
        load.go_on(50).await;
        old = new;
    }
}

/// What a stopping backend works on, it finishes.
#[tokio::test]
async fn a_backend_told_to_stop_finishes_what_runs_and_takes_nothing_new() {
    let gateway = GatewayBox::start();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (go, _) = tokio::sync::broadcast::channel::<()>(1);
    let wait = go.clone();
    let slow = service(move |request: Request<Body>| {
        let slow = request.uri().path() == "/slow";
        let (begun, mut wait) = (begun.clone(), wait.subscribe());
        async move {
            if slow {
                let _ = begun.send(());
                let _ = wait.recv().await;
            }
            Ok::<_, Infallible>(Response::new("here".to_owned()))
        }
    });
    let backend = Backend::serving(&gateway, slow).await;
    let asked = H1::get(&gateway, "/slow");
    let stop = async {
        begins.recv().await.unwrap();
        backend.stop();
        soon("nobody", async { while H1::get(&gateway, "/").await.status == 200 {} }).await;
        assert_eq!(H1::get(&gateway, "/").await.status, 502, "no new ones");
        go.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(asked, stop);
    assert_eq!((answer.status, answer.text().as_str()), (200, "here"));
    backend.ended().await.expect("an orderly end");
}

/// An origin that answers when it is told to.
async fn patient() -> (OriginBox, mpsc::UnboundedReceiver<()>, tokio::sync::broadcast::Sender<()>) {
    let (begun, begins) = mpsc::unbounded_channel();
    let (go, _) = tokio::sync::broadcast::channel::<()>(1);
    let wait = go.clone();
    let origin = OriginBox::raw(move |mut socket, _| {
        let (begun, mut wait) = (begun.clone(), wait.subscribe());
        async move {
            let head = read_head(&mut socket).await;
            if head.starts_with("HEAD ") {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await;
                return;
            }
            let _ = begun.send(());
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
            let _ = wait.recv().await;
            let _ = socket.write_all(b"rest").await;
        }
    })
    .await;
    (origin, begins, go)
}

async fn until_refused(gateway: &Gateway) {
    soon("the port's end", async {
        while TcpStream::connect(gateway.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_gateway_told_to_stop_finishes_running_responses_and_exits_with_0() {
    let gateway = Gateway::start(&[]).await;
    let (origin, mut begins, go) = patient().await;
    let _client = gateway.client(&[&origin.address.to_string()]);
    gateway.process.logs(" up name=").await;
    let mut visitor = H1::to(gateway.address).await.unwrap();
    visitor.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    soon("the request", begins.recv()).await.unwrap();
    let (status, fields) = visitor.head().await;
    gateway.process.signal("TERM");
    until_refused(&gateway).await;
    go.send(()).unwrap();
    let answer = soon("the rest", visitor.rest(status, fields, "GET")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "halfrest"));
    assert!(answer.complete);
    let ended = gateway.process.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("stopping; running exchanges have 30 s"), "{}", ended.stderr);
}

/// A second signal, or the end of the grace, cuts what still runs, and visibly.
#[tokio::test]
async fn a_second_signal_or_the_end_of_the_grace_ends_the_gateway_at_once() {
    for (flags, again) in [(&[][..], true), (&["--grace", "0.5"][..], false)] {
        let gateway = Gateway::start(flags).await;
        let (origin, mut begins, _go) = patient().await;
        let _client = gateway.client(&[&origin.address.to_string()]);
        gateway.process.logs(" up name=").await;
        let mut visitor = H1::to(gateway.address).await.unwrap();
        visitor.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
        soon("the request", begins.recv()).await.unwrap();
        let (status, fields) = visitor.head().await;
        gateway.process.signal("TERM");
        gateway.process.logs("stopping").await;
        if again {
            gateway.process.signal("TERM");
        }
        let answer = soon("the cut", visitor.rest(status, fields, "GET")).await;
        assert_eq!((answer.text().as_str(), answer.complete), ("half", false));
        let ended = gateway.process.ended().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

/// The client's second signal.
#[tokio::test]
async fn a_second_signal_ends_the_client_at_once() {
    let gateway = Gateway::start(&[]).await;
    let (origin, mut begins, _go) = patient().await;
    let client = gateway.client(&[&origin.address.to_string()]);
    gateway.process.logs(" up name=").await;
    let hello = Hello::offering(&[b"http/1.1"]);
    let mut stream = hello.connect(gateway.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await.unwrap();
    soon("the request", begins.recv()).await.unwrap();
    client.signal("INT");
    client.logs("stopping").await;
    client.signal("TERM");
    let ended = client.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// A gateway whose tunnels carry nothing ends at once: its port is shut meanwhile.
#[tokio::test]
async fn a_gateway_with_nothing_to_finish_ends_at_once() {
    let gateway = Gateway::start(&[]).await;
    let client = gateway.client(&["http://127.0.0.1:9"]);
    client.logs("tunnel: 0 up").await;
    client.logs("tunnel: 1 up").await;
    let begun = Instant::now();
    gateway.process.signal("TERM");
    let output = gateway.process.ended().await;
    assert_eq!(output.code, Some(0));
    // It had waited two seconds for the client.
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    client.logs("tunnel: 0 the gateway stops").await;
}
