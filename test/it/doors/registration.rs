//! What is let in, what it may serve, and what the others are told.

use http::{Method, Request};
use ptth_link::limits::ANNOUNCED_URLS;
use ptth_link::nested::Nested;
use ptth_test::peer::{self, Peer};
use ptth_test::{GatewayBox, H1, connect_h2, h2, soon};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::{answering, knock, registration, two_routes};

const BLOG: &str = "https%3A%2F%2Fblog.example.test";
const SHOP: &str = "https%3A%2F%2Fshop.example.test";

/// Registers over HTTP/1.1 by hand. The fields of the 101, and the backend's end of the tunnel.
pub(super) async fn register(
    gateway: &GatewayBox,
    list: &str,
    secret: &str,
) -> (http::HeaderMap, Peer<impl AsyncRead + AsyncWrite + Unpin + use<>>) {
    let mut door = knock(gateway).await;
    door.send(registration(list, &format!("Authorization: Bearer {secret}\r\n"))).await;
    let (status, fields) = soon("an answer", door.head()).await;
    assert_eq!(status, 101, "{fields:?}");
    (fields, answering(door).await)
}

/// Registers over HTTP/2.
fn extended_connect() -> Request<()> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://example.test/.well-known/ptth/{BLOG}/"))
        .header("alpn", "h2")
        .header("authorization", "Bearer blog-secret")
        .body(())
        .expect("a request");
    request.extensions_mut().insert(::h2::ext::Protocol::from("ptth"));
    request
}

/// One request of a visitor for this host, answered by `backend`, which sees the path.
pub(super) async fn exchange<IO: AsyncRead + AsyncWrite + Unpin>(
    gateway: &GatewayBox,
    host: &str,
    backend: &mut Peer<IO>,
) -> String {
    let mut visitor = H1::connect(gateway).await;
    visitor.send(format!("GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let answering = async {
        let request = soon("a request", backend.request()).await.expect("it is asked");
        assert_eq!(request.field(":authority"), host);
        backend.send(peer::headers(request.stream, 4, &[(":status", "200")])).await;
        backend.send(peer::data(request.stream, 1, b"hi")).await;
        request.field(":path")
    };
    let (answer, path) = tokio::join!(visitor.answer(), answering);
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
    path
}

/// The places that are kept for backends are kept for those who come by this door, too.
#[tokio::test]
async fn a_backend_is_let_in_when_visitors_hold_all_their_places() {
    let gateway = GatewayBox::with(|config| {
        two_routes(config);
        config.limits.connections = Some(1);
        config.limits.connections_per_address = Some(10);
    });
    let mut visitor = H1::connect(&gateway).await;
    let (_, mut first) = register(&gateway, BLOG, "blog-secret").await;
    first.ping().await;
    let mut tasks = JoinSet::new();
    let mut sender = connect_h2(&gateway, &mut tasks).await;
    let (response, stream) = sender.send_request(extended_connect(), false).expect("a stream");
    let response = soon("an answer", response).await.expect("a response");
    assert_eq!(response.status(), 200);
    let mut second = Peer::answering(Nested::new(stream, response.into_body(), ()), &[]).await;
    second.ping().await;
    gateway.until_registered(2).await;
    visitor.send("GET /hello HTTP/1.1\r\nHost: blog.example.test\r\n\r\n").await;
    soon("a request", first.request()).await.expect("it is asked");
    let late = H1::ask(&gateway, "GET / HTTP/1.1\r\nHost: blog.example.test\r\n\r\n").await;
    assert_eq!(late.status, 503);
}

/// From the 101 on the gateway asks, on the connection that the backend opened.
#[tokio::test]
async fn an_upgrade_over_http_1_becomes_a_tunnel() {
    let gateway = GatewayBox::with(two_routes);
    let (fields, mut backend) = register(&gateway, BLOG, "blog-secret").await;
    assert_eq!(fields["upgrade"], "ptth");
    assert_eq!(fields["alpn"], "h2");
    assert_eq!(fields["2ptth-url"], "https://blog.example.test:8443/");
    gateway.until_tunnels(1).await;
    assert_eq!(exchange(&gateway, "blog.example.test", &mut backend).await, "/hello");
    let elsewhere =
        H1::ask(&gateway, "GET / HTTP/1.1\r\nHost: shop.example.test\r\nConnection: close\r\n\r\n");
    assert_eq!(elsewhere.await.status, 502, "another's host");
    drop(backend);
    gateway.until_tunnels(0).await;
}

/// Some addresses of many. With all of them the answer had no room in a head.
#[tokio::test]
async fn of_thousands_of_addresses_a_backend_is_told_some() {
    let gateway = GatewayBox::with(|config| {
        two_routes(config);
        let hosts = (0..9000).map(|n| format!("h{n}.example.test").parse().expect("a host"));
        config.routes[0].hosts.extend(hosts);
    });
    let (fields, mut backend) = register(&gateway, "*", "blog-secret").await;
    assert_eq!(fields.get_all("2ptth-url").iter().count(), ANNOUNCED_URLS);
    gateway.until_registered(1).await;
    assert_eq!(exchange(&gateway, "h8999.example.test", &mut backend).await, "/hello");
}

/// The same inside one stream of an HTTP/2 connection, which goes on serving other requests.
#[tokio::test]
async fn an_extended_connect_over_http_2_becomes_a_tunnel() {
    let gateway = GatewayBox::with(two_routes);
    let mut tasks = JoinSet::new();
    let mut sender = connect_h2(&gateway, &mut tasks).await;
    let (response, stream) = sender.send_request(extended_connect(), false).expect("a stream");
    let response = soon("an answer", response).await.expect("a response");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["alpn"], "h2");
    assert_eq!(response.headers()["2ptth-url"], "https://blog.example.test/");
    let inside = Nested::new(stream, response.into_body(), ());
    let mut backend = Peer::answering(inside, &[]).await;
    backend.ping().await;
    gateway.until_tunnels(1).await;
    assert_eq!(exchange(&gateway, "blog.example.test", &mut backend).await, "/hello");
    let other = Request::get("https://shop.example.test/").body(()).expect("a request");
    let (response, _) = sender.send_request(other, true).expect("a stream");
    let answer = h2::read(response).await;
    assert_eq!(answer.status, 502, "the connection is a visitor's, too");
    drop(backend);
    gateway.until_tunnels(0).await;
}

/// 400, 401, 403 and 409, each with its reason, and nobody comes in.
#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let gateway = GatewayBox::with(two_routes);
    let (_, mut first) = register(&gateway, SHOP, "shop-secret").await;
    gateway.until_registered(1).await;
    let blog = "Authorization: Bearer blog-secret\r\n";
    let table = [
        ("nonsense", blog, 400),
        ("", blog, 400),
        ("https%3A%2F%2Fblog.example.test%2Fpath", blog, 400),
        ("https%3A%2F%2Fme%40blog.example.test", blog, 400),
        ("https%3A%2F%2Fblog.example.test%23%40shop.example.test", blog, 400),
        ("https%3A%2F%2Fblog.example.test%3Fq", blog, 400),
        ("https%3A%2F%2Fblog.example.test%2F", blog, 400),
        ("HTTPS%3A%2F%2Fblog.example.test", blog, 400),
        ("%FF", blog, 400),
        (BLOG, "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", 400),
        (BLOG, "Authorization: Bearer blog-secret\r\nContent-Length: 1\r\n", 400),
        (BLOG, "", 401),
        (BLOG, "Authorization: Bearer nobody-secret\r\n", 401),
        (BLOG, "Authorization: Basic YTpi\r\n", 401),
        (SHOP, blog, 403),
        ("https%3A%2F%2Fnobody.example.test", blog, 403),
        ("https%3A%2F%2Fblog.example.test%20https%3A%2F%2Fshop.example.test", blog, 403),
        ("*", "Authorization: Bearer bob-secret\r\n2ptth-name: alice\r\n", 403),
    ];
    for (list, fields, status) in table {
        let mut door = knock(&gateway).await;
        door.send(registration(list, fields)).await;
        let serving = async { while first.next().await.is_some() {} };
        let answer = tokio::select! {
            answer = door.answer() => answer,
            () = serving => panic!("the first backend is gone"),
        };
        assert_eq!(answer.status, status, "{list} {fields:?}: {}", answer.text());
        assert!(!answer.field("2ptth-reason").is_empty());
        assert_eq!(answer.fields.contains_key("www-authenticate"), status == 401);
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    }
    let mut door = knock(&gateway).await;
    door.send(registration(SHOP, "Authorization: Bearer shop-secret\r\n")).await;
    let serving = async { while first.next().await.is_some() {} };
    let answer = tokio::select! {
        answer = door.answer() => answer,
        () = serving => panic!("the first backend is gone"),
    };
    assert_eq!(answer.status, 409, "taken: {}", answer.text());
}

/// A dynamic name, by its host and by its path, and nobody else's.
#[tokio::test]
async fn a_name_is_served_by_host_and_by_path() {
    let gateway = GatewayBox::with(|config| {
        two_routes(config);
        let hosts = ["tunnel.example.test", "example.test"].map(str::to_owned);
        config.names.iter_mut().for_each(|names| names.path_hosts = hosts.to_vec());
    });
    let before = H1::ask(
        &gateway,
        "GET / HTTP/1.1\r\nHost: bob.tunnel.example.test\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(before.await.status, 404, "nobody is there");
    let (fields, mut backend) = register(&gateway, "*", "bob-secret").await;
    let urls: Vec<_> = fields.get_all("2ptth-url").iter().collect();
    assert_eq!(
        urls,
        [
            "https://bob.tunnel.example.test:8443/",
            "https://tunnel.example.test:8443/bob/",
            "https://example.test:8443/bob/"
        ]
    );
    gateway.until_registered(1).await;
    assert_eq!(exchange(&gateway, "bob.tunnel.example.test", &mut backend).await, "/hello");
}

/// What asks for another protocol is a visitor, whatever it is called.
#[tokio::test]
async fn another_token_is_no_registration() {
    let gateway = GatewayBox::with(two_routes);
    for (method, token) in [("GET", "PTTH/1.0"), ("POST", "ptth"), ("GET", "ptthx")] {
        let head = registration(BLOG, "Authorization: Bearer blog-secret\r\nConnection: close\r\n");
        let head =
            head.replacen("GET", method, 1).replace("Upgrade: ptth", &format!("Upgrade: {token}"));
        let answer =
            H1::ask(&gateway, head.replace("example.test:8443", "blog.example.test")).await;
        assert_eq!(answer.status, 502, "{method} {token}: there is no upstream");
    }
    assert!(gateway.registry.all().is_empty());
}
