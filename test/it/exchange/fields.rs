//! Header fields, there and back.

use std::collections::BTreeMap;

use ptth_test::{Ask, Dialect, H1};

use super::{OK, answering, request_line, texts, values};

#[tokio::test]
async fn a_request_keeps_its_fields() {
    let mut path = answering(OK).await;
    let ask = Ask::get("/")
        .with("x-twice", "1")
        .with("x-odd", b"caf\xe9 \xff\x80 \xf0\x9f\x9a\x80")
        .with("x-empty", "")
        .with("x-twice", "2, 2")
        .with("accept", "text/html")
        .with("x-twice", "1")
        .with("cookie", "a=1; b=\"2\"")
        .with("authorization", "Bearer abc==")
        .with("te", "trailers")
        .with("x_under", "score");
    for dialect in Dialect::BOTH {
        assert_eq!(dialect.ask(&path.gateway, &ask).await.status, 200);
        let head = path.told().await;
        assert_eq!(texts(&head, "x-twice"), ["1", "2, 2", "1"], "{dialect:?}");
        assert_eq!(values(&head, "x-odd"), [b"caf\xe9 \xff\x80 \xf0\x9f\x9a\x80"], "{dialect:?}");
        assert_eq!(texts(&head, "x-empty"), [""], "{dialect:?}");
        assert_eq!(texts(&head, "accept"), ["text/html"], "{dialect:?}");
        assert_eq!(texts(&head, "cookie"), ["a=1; b=\"2\""], "{dialect:?}");
        assert_eq!(texts(&head, "authorization"), ["Bearer abc=="], "{dialect:?}");
        assert_eq!(texts(&head, "te"), ["trailers"], "{dialect:?}");
        assert_eq!(texts(&head, "x_under"), ["score"], "{dialect:?}");
        assert_eq!(texts(&head, "host"), ["example.test"], "{dialect:?}");
    }
}

#[tokio::test]
async fn a_hundred_fields_cross_and_one_more_is_refused() {
    let mut path = answering(OK).await;
    // Host is one of HTTP/1.1's hundred; in HTTP/2 it is no field.
    for (dialect, room) in [(Dialect::H1, 99), (Dialect::H2, 100)] {
        let mut ask = Ask::get("/");
        for n in 0..room {
            ask.fields.append("x-many", n.into());
        }
        assert_eq!(dialect.ask(&path.gateway, &ask).await.status, 200, "{dialect:?}");
        let expected: Vec<String> = (0..room).map(|n| n.to_string()).collect();
        assert_eq!(texts(&path.told().await, "x-many"), expected, "{dialect:?}");
        ask.fields.append("x-many", room.into());
        assert_eq!(dialect.ask(&path.gateway, &ask).await.status, 431, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_response_keeps_its_fields() {
    let many: String = (0..100).map(|n| format!("x-many: {n}\r\n")).collect();
    let head = b"HTTP/1.1 200 OK\r\nset-cookie: a=1; Path=/\r\nx-empty:\r\n\
        x-odd: caf\xe9 \xff\x80\r\nSET-COOKIE: b=2; Expires=Wed, 09 Jun 2027 10:18:14 GMT\r\n\
        date: Wed, 09 Jun 2027 10:18:14 GMT\r\nserver: itself\r\ncontent-length: 0\r\n";
    let path = answering([&head[..], many.as_bytes(), b"\r\n"].concat()).await;
    for dialect in Dialect::BOTH {
        let answer = dialect.ask(&path.gateway, &Ask::get("/")).await;
        let all = |name: &str| {
            answer.fields.get_all(name).iter().map(|v| v.as_bytes().to_vec()).collect::<Vec<_>>()
        };
        let cookies: [&[u8]; 2] = [b"a=1; Path=/", b"b=2; Expires=Wed, 09 Jun 2027 10:18:14 GMT"];
        assert_eq!(all("set-cookie"), cookies, "{dialect:?}");
        assert_eq!(all("x-empty"), [b""], "{dialect:?}");
        assert_eq!(answer.field("server"), "itself", "{dialect:?}");
        assert_eq!(all("date"), [b"Wed, 09 Jun 2027 10:18:14 GMT"], "{dialect:?}");
        let expected: Vec<_> = (0..100).map(|n| n.to_string().into_bytes()).collect();
        assert_eq!(all("x-many"), expected, "{dialect:?}");
        if dialect == Dialect::H2 {
            // The HTTP/1.1 visitor here reads heads as text.
            assert_eq!(all("x-odd"), [b"caf\xe9 \xff\x80"]);
        }
    }
    let mut visitor = H1::connect(&path.gateway).await;
    visitor.send(Ask::get("/").text()).await;
    assert!(visitor.until(b"x-odd: caf\xe9 \xff\x80\r\n").await.is_some());
}

/// What concerns one hop, and a field that Connection names.
const HOP: [(&str, &str); 8] = [
    ("connection", "keep-alive, X-Mine, host, content-length, via, x-forwarded-for"),
    ("connection", "x-other"),
    ("x-mine", "1"),
    ("x-other", "1"),
    ("keep-alive", "timeout=7"),
    ("proxy-connection", "keep-alive"),
    ("proxy-authorization", "Basic eDp5"),
    ("te", "gzip;q=0.5, trailers"),
];

/// Connection fields end at each hop, and Connection can't take away what frames, routes or is ours.
#[tokio::test]
async fn hop_by_hop_request_fields_do_not_cross() {
    let mut path = answering(OK).await;
    let mut request =
        "POST /hop HTTP/1.1\r\nHost: example.test\r\nContent-Length: 0\r\n".to_owned();
    for (name, value) in HOP {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let answer =
        H1::ask(&path.gateway, format!("{request}Upgrade: h2c\r\nX-Kept: 1\r\n\r\n")).await;
    assert_eq!(answer.status, 200);
    let head = path.told().await;
    assert_eq!(request_line(&head), "POST /hop HTTP/1.1");
    for name in ["x-mine", "x-other", "proxy-connection", "proxy-authorization", "upgrade"] {
        assert!(values(&head, name).is_empty(), "{name}: {}", String::from_utf8_lossy(&head));
    }
    for name in ["host", "content-length", "via", "x-forwarded-for", "x-kept"] {
        assert_eq!(values(&head, name).len(), 1, "{name}: {}", String::from_utf8_lossy(&head));
    }
    assert!(!texts(&head, "keep-alive").contains(&"timeout=7".to_owned()));
    // RFC 9110 §10.1.4: what is kept of TE concerns the next hop alone, which is told so.
    assert_eq!(texts(&head, "te"), ["trailers"]);
    assert_eq!(texts(&head, "connection"), ["te"]);
}

#[tokio::test]
async fn hop_by_hop_response_fields_do_not_cross() {
    let path = answering(
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-mine\r\nx-mine: 1\r\nkeep-alive: timeout=7\r\n\
         proxy-connection: keep-alive\r\nproxy-authenticate: Basic\r\nupgrade: h2,h2c\r\n\
         2ptth-anything: 1\r\nx-kept: 1\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    for dialect in Dialect::BOTH {
        let answer = dialect.ask(&path.gateway, &Ask::get("/")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{dialect:?}");
        for name in [
            "x-mine",
            "keep-alive",
            "connection",
            "proxy-connection",
            "proxy-authenticate",
            "upgrade",
            "2ptth-anything",
        ] {
            assert_eq!(answer.field(name), "", "{dialect:?} {name}");
        }
        assert_eq!(answer.field("x-kept"), "1", "{dialect:?}");
    }
}

/// Everything that the gateway says about a visitor.
const OURS: [&str; 14] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
    "forwarded",
    "via",
    "client-cert",
    "client-cert-chain",
    "2ptth-request-id",
    "2ptth-admin",
    "x_forwarded_for",
    "2ptth_admin",
];

#[tokio::test]
async fn a_forger_is_seen_as_who_he_is() {
    let mut path = answering(OK).await;
    for dialect in Dialect::BOTH {
        let version = if dialect == Dialect::H1 { "1.1 2ptth" } else { "2 2ptth" };
        let mut ask = Ask::get("/");
        assert_eq!(dialect.ask(&path.gateway, &ask).await.status, 200);
        let honest = identity(&path.told().await);
        for name in OURS {
            ask = ask.with(name, "203.0.113.9").with(name, "for=203.0.113.9");
        }
        assert_eq!(dialect.ask(&path.gateway, &ask).await.status, 200);
        let forged = identity(&path.told().await);
        assert_eq!(forged, honest, "{dialect:?}");
        let one = |value: &str| vec![value.to_owned()];
        assert_eq!(forged["x-forwarded-for"], one("127.0.0.1"));
        assert_eq!(forged["x-real-ip"], one("127.0.0.1"));
        assert_eq!(forged["x-forwarded-proto"], one("https"));
        assert_eq!(forged["x-forwarded-host"], one("example.test"));
        assert_eq!(forged["via"], one(version));
        let forwarded = "for=127.0.0.1;host=\"example.test\";proto=https";
        assert_eq!(forged["forwarded"], one(forwarded));
    }
}

/// What a head says about its visitor, but for the request's id, which is to be one and no forgery.
fn identity(head: &[u8]) -> BTreeMap<&'static str, Vec<String>> {
    let mut all: BTreeMap<_, _> = OURS.iter().map(|name| (*name, texts(head, name))).collect();
    let id = all.insert("2ptth-request-id", Vec::new()).unwrap_or_default();
    assert!(matches!(id.as_slice(), [id] if id.len() == 16), "{id:?}");
    all
}

/// A trailer doesn't take the place of a field that the gateway sets.
#[tokio::test]
async fn trailers_forge_nothing() {
    let mut path = answering(OK).await;
    for name in OURS {
        let mut ask = Ask::new("POST", "/");
        ask.trailers.insert(name, "203.0.113.9".parse().unwrap());
        for dialect in Dialect::BOTH {
            // What the checker of HTTP/1.1 refuses, crosses no more than what is taken out later.
            let answer = dialect.ask(&path.gateway, &ask).await;
            assert!([200, 400].contains(&answer.status), "{dialect:?} {name}: {}", answer.status);
        }
    }
    assert_eq!(H1::get(&path.gateway, "/last").await.status, 200);
    loop {
        let head = String::from_utf8_lossy(&path.told().await).into_owned();
        assert!(!head.contains("203.0.113.9"), "{head}");
        if head.starts_with("GET /last ") {
            return;
        }
    }
}
