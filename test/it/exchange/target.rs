//! The request line, byte for byte or refused.

use ptth_test::frames::{END_HEADERS, END_STREAM, HEADERS, TlsFrames, headers};
use ptth_test::{Ask, Dialect, H1, H2};

use super::{OK, answering, request_line, texts};

#[tokio::test]
async fn path_and_query_cross_byte_for_byte() {
    let mut path = answering(OK).await;
    for target in [
        "/",
        "/a%2Fb?x=%20&y=a+b",
        "//x",
        "///",
        "/?",
        "/a?",
        "/??a=?b",
        "/a//b/../c/./d/",
        "/%2e%2E/%00%ff%C3%a9",
        "/~!$&'()*+,;=:@-._",
        "/x;v=1?redirect=https://other.test/a?b",
        "/a|b",
    ] {
        for dialect in Dialect::BOTH {
            let answer = dialect.ask(&path.gateway, &Ask::get(target)).await;
            assert_eq!(answer.status, 200, "{dialect:?} {target}");
            assert_eq!(request_line(&path.told().await), format!("GET {target} HTTP/1.1"));
        }
    }
}

#[tokio::test]
async fn eight_kibibytes_of_target_cross_and_one_more_is_refused() {
    let mut path = answering(OK).await;
    for (dialect, room) in [(Dialect::H1, 8192 - "GET  HTTP/1.1".len()), (Dialect::H2, 8192)] {
        let target = format!("/{}", "x".repeat(room - 1));
        assert_eq!(dialect.ask(&path.gateway, &Ask::get(&target)).await.status, 200);
        assert_eq!(request_line(&path.told().await), format!("GET {target} HTTP/1.1"));
        let answer = dialect.ask(&path.gateway, &Ask::get(&format!("{target}y"))).await;
        assert_eq!(answer.status, 414, "{dialect:?}");
    }
    assert!(path.told.is_empty());
}

/// RFC 9112 §3.2.4
#[tokio::test]
async fn options_asterisk_crosses() {
    let mut path = answering(OK).await;
    let answer = H1::ask(&path.gateway, "OPTIONS * HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    let head = path.told().await;
    assert_eq!(request_line(&head), "OPTIONS * HTTP/1.1");
    assert_eq!(texts(&head, "host"), ["example.test"]);
    // RFC 9113 §8.3.1: `:path` is the asterisk.
    let mut visitor = TlsFrames::visitor(&path.gateway).await;
    let fields = [
        (":method", "OPTIONS"),
        (":scheme", "https"),
        (":authority", "example.test"),
        (":path", "*"),
    ];
    visitor.send(headers(1, &fields, true)).await;
    let answer = visitor.next_of(HEADERS).await;
    // RFC 7541, appendix A: 8 is `:status: 200`.
    assert_eq!((answer.flags & END_HEADERS, answer.payload[0]), (END_HEADERS, 0x88));
    assert_eq!(answer.flags & END_STREAM, 0);
    assert_eq!(request_line(&path.told().await), "OPTIONS * HTTP/1.1");
}

/// RFC 9112 §3.2.2
#[tokio::test]
async fn an_absolute_target_wins_over_host() {
    let mut path = answering(OK).await;
    for (target, line, host) in [
        ("http://wins.test/p?q", "GET /p?q HTTP/1.1", "wins.test"),
        ("https://wins.test:8443/", "GET / HTTP/1.1", "wins.test:8443"),
        ("http://wins.test", "GET / HTTP/1.1", "wins.test"),
        ("http://wins.test?q", "GET /?q HTTP/1.1", "wins.test"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: loses.test\r\n\r\n");
        assert_eq!(H1::ask(&path.gateway, request).await.status, 200, "{target}");
        let head = path.told().await;
        assert_eq!(request_line(&head), line);
        assert_eq!(texts(&head, "host"), [host]);
        assert_eq!(texts(&head, "x-forwarded-host"), [host]);
    }
}

#[tokio::test]
async fn connect_is_refused_and_nothing_dialled() {
    let mut path = answering(OK).await;
    let target = path.origin.address;
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    assert_eq!(H1::ask(&path.gateway, request).await.status, 405);
    let h2 = H2::connect(&path.gateway).await;
    let request = http::Request::connect(target.to_string()).body(()).unwrap();
    let answer = ptth_test::h2::read(h2.open(request, true).await.0).await;
    assert_eq!(answer.status, 405);
    assert_eq!(H1::get(&path.gateway, "/after").await.status, 200);
    assert_eq!(request_line(&path.told().await), "GET /after HTTP/1.1");
}

#[tokio::test]
async fn unknown_methods_cross() {
    let mut path = answering(OK).await;
    for method in ["BREW", "M-SEARCH", "PROPFIND", "get", "X!#$%&'*+-.^_`|~9", "TRACE"] {
        for dialect in Dialect::BOTH {
            let answer = dialect.ask(&path.gateway, &Ask::new(method, "/pot")).await;
            assert_eq!(answer.status, 200, "{dialect:?} {method}");
            assert_eq!(request_line(&path.told().await), format!("{method} /pot HTTP/1.1"));
        }
    }
}

/// RFC 9112 §3.2
#[tokio::test]
async fn a_request_names_its_host_once() {
    let mut path = answering(OK).await;
    for hosts in [
        "",
        "Host: example.test\r\nHost: example.test\r\n",
        "Host: example.test\r\nHost: other.test\r\n",
        "Host:\r\n",
        "Host: user@example.test\r\n",
        "Host: example.test/path\r\n",
        "Host: a.test, b.test\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\n{hosts}\r\n");
        let mut visitor = H1::connect(&path.gateway).await;
        visitor.send(request).await;
        assert_eq!(visitor.answer().await.status, 400, "{hosts:?}");
        assert!(visitor.is_closed().await, "{hosts:?}");
    }
    assert_eq!(H1::get(&path.gateway, "/after").await.status, 200);
    assert_eq!(request_line(&path.told().await), "GET /after HTTP/1.1");
}

#[tokio::test]
async fn http_1_0_is_served() {
    let mut path = answering(OK).await;
    let mut visitor = H1::connect(&path.gateway).await;
    visitor.send("GET /old HTTP/1.0\r\nHost: example.test\r\n\r\n").await;
    let answer = visitor.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert!(visitor.is_closed().await, "HTTP/1.0 keeps a connection only if asked to");
    let head = path.told().await;
    assert_eq!(request_line(&head), "GET /old HTTP/1.1");
    assert_eq!(texts(&head, "via"), ["1.0 2ptth"]);
    // Before Host there was none: the name in the TLS handshake is the host.
    assert_eq!(H1::ask(&path.gateway, "GET / HTTP/1.0\r\n\r\n").await.status, 200);
    assert_eq!(texts(&path.told().await, "host"), ["example.test"]);
    let mut visitor = H1::connect(&path.gateway).await;
    for _ in 0..2 {
        visitor.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = visitor.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        assert_eq!(answer.field("connection"), "keep-alive");
    }
}

/// Chunks came with HTTP/1.1; before, a body of unknown length lasted to the end of the connection.
#[tokio::test]
async fn http_1_0_is_never_sent_chunks() {
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    let path = answering(chunked).await;
    for fields in ["", "Connection: keep-alive\r\n"] {
        let mut visitor = H1::connect(&path.gateway).await;
        visitor.send(format!("GET / HTTP/1.0\r\nHost: example.test\r\n{fields}\r\n")).await;
        let answer = visitor.answer().await;
        assert_eq!(answer.field("transfer-encoding"), "", "{fields}");
        assert_eq!((answer.status, answer.text().as_str()), (200, "abc"), "{fields}");
        assert!(visitor.is_closed().await, "{fields}");
    }
}
