//! The gateway as one service of another program's server.

use std::convert::Infallible;
use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr};

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use ptth_link::shutdown::{Trigger, channel};
use ptth_server::config::{Admission, CertificateSource, Config};
use ptth_server::embed::Embedded;
use ptth_server::lab::Registry;
use ptth_test::peer::{self, Peer};
use ptth_test::{H1, soon, until_registered};
use tokio::io::{AsyncReadExt, join, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{registration, two_routes};

/// A program with a page of its own, and the gateway in front of it.
struct Program {
    address: SocketAddr,
    registry: std::sync::Arc<Registry>,
    _trigger: Trigger,
    _running: JoinSet<()>,
}

impl Program {
    async fn start() -> Self {
        let names = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
        let mut config = Config::new(names, Admission::make());
        two_routes(&mut config);
        let (trigger, shutdown) = channel();
        let (gateway, driver) = Embedded::new(&config, shutdown).expect("a gateway");
        let registry = gateway.registry();
        let page = tower_service_of("the program's own page");
        let service = gateway.in_front_of(page);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut running = JoinSet::new();
        running.spawn(driver.run());
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let serving = http.serve_connection(TokioIo::new(socket), service);
                    let _ = serving.with_upgrades().await;
                });
            }
        });
        Self { address, registry, _trigger: trigger, _running: running }
    }

    async fn connect(&self) -> H1<TcpStream> {
        H1::over(TcpStream::connect(self.address).await.expect("a connection"))
    }
}

/// What answers everything else.
#[derive(Clone)]
struct Page(&'static str);

fn tower_service_of(text: &'static str) -> Page {
    Page(text)
}

impl tower_service::Service<Request<Incoming>> for Page {
    type Response = Response<Full<bytes::Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Incoming>) -> Self::Future {
        std::future::ready(Ok(Response::new(Full::from(self.0))))
    }
}

/// What has a route goes to its backend, what has none to the program.
#[tokio::test]
async fn a_program_serves_what_no_backend_does() {
    let program = Program::start().await;
    let mut visitor = program.connect().await;
    visitor.send("GET /own HTTP/1.1\r\nHost: program.example.test\r\n\r\n").await;
    assert_eq!(visitor.answer().await.text(), "the program's own page");
    // Names have paths on this host, and nobody has one that is called like this page.
    visitor.send("GET /about HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    assert_eq!(visitor.answer().await.text(), "the program's own page");
    visitor.send("GET / HTTP/1.1\r\nHost: about.tunnel.example.test\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 404, "a name that nobody has");
    visitor.send("GET / HTTP/1.1\r\nHost: blog.example.test\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 502, "a route without a backend");

    let mut door = program.connect().await;
    let list = "https%3A%2F%2Fblog.example.test";
    door.send(registration(list, "Authorization: Bearer blog-secret\r\n")).await;
    let (status, fields) = soon("an answer", door.head()).await;
    assert_eq!(status, 101, "{fields:?}");
    let unread = Cursor::new(door.take_unread());
    let (read, write) = split(door.stream);
    let mut backend = Peer::answering(join(unread.chain(read), write), &[]).await;
    backend.ping().await;
    soon("the tunnel", until_registered(&program.registry, 1)).await;

    let asking = async {
        visitor
            .send("POST /x HTTP/1.1\r\nHost: blog.example.test\r\nContent-Length: 2\r\n\r\nhi")
            .await;
        visitor.answer().await
    };
    let answering = async {
        let request = soon("a request", backend.request()).await.expect("it is asked");
        assert_eq!(request.field(":path"), "/x");
        backend.send(peer::headers(request.stream, 4, &[(":status", "201")])).await;
        backend.send(peer::data(request.stream, 1, b"made")).await;
    };
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!((answer.status, answer.text().as_str()), (201, "made"));
}
