//! An origin behind a tunnel whose other end is a bare HTTP/2 client.

use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::time::Duration;

use h2::client::SendRequest;
use ptth_link::budget::Budget;
use ptth_link::limits::BODY_BUDGET;
use ptth_link::shutdown::{Trigger, channel};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::journal::Journal;
use crate::serve::Answering;

/// A listener, and a gateway's end of a tunnel to it, whose streams have this window.
async fn tunnel(window: u32) -> (TcpListener, SendRequest<Bytes>, JoinSet<()>, Trigger) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = OriginAddress::Http { host: "127.0.0.1".to_owned(), port };
    let service = Origin::new(address, &OriginOptions::default()).unwrap();
    let answering = Answering { ours: true, ..Answering::new(Journal::default()) };
    let (near, far) = duplex(64 * 1024);
    let (trigger, drain) = channel();
    let (up, _) = oneshot::channel();
    let mut running = JoinSet::new();
    running.spawn(async move {
        crate::serve::answer(far, service, answering, drain, up).await;
    });
    let mut builder = h2::client::Builder::new();
    let (sender, connection) = builder.initial_window_size(window).handshake(near).await.unwrap();
    running.spawn(async move {
        let _ = connection.await;
    });
    (listener, sender.ready().await.unwrap(), running, trigger)
}

fn request(method: &str) -> Request<()> {
    Request::builder().method(method).uri("https://a.test/").body(()).unwrap()
}

async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), event).await.expect("it never came")
}

/// Reads to the end of a head.
async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn an_upload_goes_on_while_nobody_takes_the_response() {
    let (listener, mut gateway, _running, _trigger) = tunnel(0).await;
    let (response, mut upload) = gateway.send_request(request("POST"), false).unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    assert!(head(&mut socket).await.ends_with("\r\ntransfer-encoding: chunked\r\n\r\n"));
    socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    let mut body = response.await.unwrap().into_body();
    // Not a byte of the response has left, and none may: the window is shut.
    upload.send_data(Bytes::from_static(b"upload"), true).unwrap();
    let mut got = [0; 16];
    soon(socket.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"6\r\nupload\r\n0\r\n\r\n");
    body.flow_control().release_capacity(0).unwrap();
    assert!(!body.is_end_stream());
}

#[tokio::test]
async fn a_connection_is_used_again_and_closed_when_its_time_is_up() {
    let (listener, mut gateway, _running, _trigger) = tunnel(65_535).await;
    let (response, _) = gateway.send_request(request("GET"), true).unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut response = response;
    for _ in 0..3 {
        assert!(head(&mut socket).await.starts_with("GET / HTTP/1.1\r\nhost: a.test\r\n"));
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hi");
        assert!(body.data().await.is_none());
        response = gateway.send_request(request("HEAD"), true).unwrap().0;
        assert!(head(&mut socket).await.starts_with("HEAD / HTTP/1.1\r\n"));
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert!(response.await.unwrap().into_body().is_end_stream());
        response = gateway.send_request(request("GET"), true).unwrap().0;
    }
    head(&mut socket).await;
    socket.write_all(b"HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=30\r\n\r\n").await.unwrap();
    response.await.unwrap();
    tokio::time::pause();
    // Nothing else wakes anybody: only the clock can end it.
    assert_eq!(soon(socket.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_connection_on_which_more_came_than_was_asked_for_is_not_used_again() {
    let (listener, mut gateway, _running, _trigger) = tunnel(65_535).await;
    let endings = [
        "Content-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nx",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "Content-Length: 2\r\nConnection: close\r\n\r\nhi",
    ];
    let mut before = Vec::new();
    for ending in endings {
        let (response, _) = gateway.send_request(request("GET"), true).unwrap();
        let (mut socket, _) = soon(listener.accept()).await.unwrap();
        head(&mut socket).await;
        socket.write_all(format!("HTTP/1.1 200 OK\r\n{ending}").as_bytes()).await.unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hi", "{ending:?}");
        while let Some(more) = body.data().await {
            assert_eq!(more.unwrap(), "", "{ending:?}");
        }
        // Open at this end, so that only what came on it speaks against it.
        before.push(socket);
    }
    drop(gateway.send_request(request("GET"), true).unwrap());
    soon(listener.accept()).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_spoke_of_another_protocol_is_not_used_again() {
    let (listener, mut gateway, _running, _trigger) = tunnel(65_535).await;
    let (response, _) = gateway.send_request(request("GET"), true).unwrap();
    let mut first = answer(&listener, "101 Switching Protocols\r\nUpgrade: x").await;
    assert_eq!(soon(response).await.unwrap().status(), 502);
    let (response, _) = gateway.send_request(request("GET"), true).unwrap();
    let _second = answer(&listener, "204 No Content").await;
    assert_eq!(soon(response).await.unwrap().status(), 204);
    assert_eq!(soon(first.read(&mut [0; 1])).await.unwrap(), 0, "it was closed");
}

/// The body that was promised may come late, and would be the next visitor's response.
#[tokio::test]
async fn a_connection_whose_response_promised_a_body_that_may_not_come_is_not_used_again() {
    let (listener, mut gateway, _running, _trigger) = tunnel(65_535).await;
    for (method, head) in [
        ("HEAD", "200 OK\r\nContent-Length: 2"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
        ("GET", "304 Not Modified\r\nContent-Length: 2"),
        ("GET", "304 Not Modified\r\nTransfer-Encoding: chunked"),
        ("GET", "204 No Content\r\nContent-Length: 2"),
        ("GET", "103 Early Hints\r\nContent-Length: 2\r\n\r\nHTTP/1.1 204 No Content"),
    ] {
        let (response, _) = gateway.send_request(request(method), true).unwrap();
        let mut first = answer(&listener, head).await;
        soon(response).await.unwrap();
        let (next, _) = gateway.send_request(request("GET"), true).unwrap();
        assert_eq!(soon(first.read(&mut [0; 1])).await.unwrap(), 0, "closed after {method} {head}");
        let _second = answer(&listener, "204 No Content\r\nConnection: close").await;
        assert_eq!(soon(next).await.unwrap().status(), 204);
    }
}

/// Ten 1xx responses pass, an eleventh ends the exchange and its connection.
#[tokio::test]
async fn more_informational_responses_than_anybody_needs_are_a_502() {
    let (listener, mut gateway, _running, _trigger) = tunnel(65_535).await;
    for (count, status) in [(10, 204), (11, 502)] {
        let early = "103 Early Hints\r\n\r\nHTTP/1.1 ".repeat(count);
        let (response, _) = gateway.send_request(request("GET"), true).unwrap();
        let mut origin = answer(&listener, &format!("{early}204 No Content")).await;
        assert_eq!(soon(response).await.unwrap().status(), status);
        if status == 204 {
            let (response, _) = gateway.send_request(request("GET"), true).unwrap();
            head(&mut origin).await;
            origin
                .write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            soon(response).await.unwrap();
        }
        assert_eq!(soon(origin.read(&mut [0; 1])).await.unwrap_or(0), 0, "it was closed");
    }
}

/// An exchange that leaves its connection at rest.
async fn rest(listener: &TcpListener, gateway: &mut SendRequest<Bytes>) -> TcpStream {
    let (response, _) = gateway.send_request(request("GET"), true).unwrap();
    let socket = answer(listener, "204 No Content").await;
    assert_eq!(soon(response).await.unwrap().status(), 204);
    socket
}

/// RFC 9110 §9.2.2, RFC 9112 §9.3.1.
#[tokio::test]
async fn a_request_whose_connection_had_rested_and_closes_is_sent_again_if_it_may_be() {
    let (listener, mut gateway, _running, _trigger) = tunnel(65_535).await;
    let early = "HTTP/1.1 103 Early Hints\r\n\r\n";
    for (method, body, said, again) in [
        ("GET", false, "", true),
        ("HEAD", false, "", true),
        ("OPTIONS", false, "", true),
        ("PUT", false, "", true),
        ("DELETE", false, "", true),
        ("POST", false, "", false),
        ("PATCH", false, "", false),
        ("PURGE", false, "", false),
        ("PUT", true, "", false),
        ("POST", true, "", false),
        ("GET", false, "H", false),
        ("GET", false, early, false),
    ] {
        for reset in [false, true] {
            let mut resting = rest(&listener, &mut gateway).await;
            let (response, mut upload) = gateway.send_request(request(method), !body).unwrap();
            if body {
                upload.send_data(Bytes::from_static(b"body"), true).unwrap();
            }
            assert!(head(&mut resting).await.starts_with(method));
            resting.write_all(said.as_bytes()).await.unwrap();
            if reset {
                resting.set_zero_linger().unwrap();
            }
            drop(resting);
            let told = format!("{method} body={body} reset={reset} {said:?}");
            if again {
                let mut fresh = answer(&listener, "200 OK\r\nConnection: close").await;
                assert_eq!(soon(response).await.unwrap().status(), 200, "{told}");
                fresh.shutdown().await.unwrap();
            } else {
                // Sent again, it would be answered by the next to accept.
                assert_eq!(soon(response).await.unwrap().status(), 502, "{told}");
            }
        }
    }
}

/// Once, and only after a connection that had rested.
#[tokio::test]
async fn a_request_is_sent_again_once() {
    let (listener, mut gateway, _running, _trigger) = tunnel(65_535).await;
    for tries in [1, 2] {
        let resting = if tries == 2 { Some(rest(&listener, &mut gateway).await) } else { None };
        let (response, _) = gateway.send_request(request("GET"), true).unwrap();
        if let Some(mut resting) = resting {
            head(&mut resting).await;
        }
        let (mut fresh, _) = soon(listener.accept()).await.unwrap();
        head(&mut fresh).await;
        drop(fresh);
        assert_eq!(soon(response).await.unwrap().status(), 502);
    }
}

/// Takes a connection and answers the request that comes on it.
async fn answer(listener: &TcpListener, response: &str) -> TcpStream {
    let (mut socket, _) = soon(listener.accept()).await.unwrap();
    head(&mut socket).await;
    socket.write_all(format!("HTTP/1.1 {response}\r\n\r\n").as_bytes()).await.unwrap();
    socket
}

/// A visitor who takes a request back at once would have them all closed, and more of them dialled.
#[tokio::test]
async fn a_request_whose_body_failed_is_not_tried_on_all_connections() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = OriginAddress::Http { host: "127.0.0.1".to_owned(), port };
    let connections =
        Connections::new(Arc::new(Whereabouts::new(address, &OriginOptions::default()).unwrap()));
    let host = HeaderValue::from_static("a.test");
    let (mut sockets, mut used) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let get = Sending::new(&Method::GET, "/", &host, &HeaderMap::new(), Body::empty());
        let (asked, socket) = tokio::join!(
            connections.ask(get, &Method::GET, None),
            answer(&listener, "204 No Content")
        );
        used.push(asked.unwrap().1);
        sockets.push(socket);
    }
    drop(used);
    let (near, far) = duplex(64 * 1024);
    let (client, server) = tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
    let ((mut sender, connection), mut server) = (client.unwrap(), server.unwrap());
    let _: &h2::server::Connection<_, Bytes> = &server;
    let mut running = JoinSet::new();
    running.spawn(async move {
        let _ = connection.await;
    });
    let (_response, _upload) = sender.send_request(request("POST"), false).unwrap();
    let (incoming, _respond) = soon(server.accept()).await.unwrap().unwrap();
    let (inflow, body) = ptth_link::body::split(incoming.into_body(), &Budget::new(BODY_BUDGET));
    drop(inflow);
    let post = Sending::new(&Method::POST, "/", &host, &HeaderMap::new(), body);
    assert!(soon(connections.ask(post, &Method::POST, None)).await.is_err());
    // The kernel knows; the runtime may not have heard of it.
    let peek = |socket: &TcpStream| SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    let closed = sockets.iter().filter(|socket| peek(socket).is_ok_and(|read| read == 0)).count();
    assert!(closed <= 1, "{closed} were closed");
}
