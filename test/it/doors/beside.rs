//! What registrations do to whoever is beside them: on the same connection, from the same address, at the
//! authorizer.

use ::h2::Reason;
use ::h2::client::SendRequest;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use ptth_client::Body;
use ptth_link::nested::Nested;
use ptth_server::Order;
use ptth_test::lab::Function;
use ptth_test::peer::Peer;
use ptth_test::{Backend, GatewayBox, connect_h2, h2, soon};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{bearer, credential, two_routes};

/// A registration over HTTP/2 for the route `blog`.
fn registration(secret: &str) -> Request<()> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("https://example.test/.well-known/ptth/https%3A%2F%2Fblog.example.test/")
        .header("alpn", "h2")
        .header("authorization", format!("Bearer {secret}"))
        .body(())
        .expect("a request");
    request.extensions_mut().insert(::h2::ext::Protocol::from("ptth"));
    request
}

/// SECURITY, failed admissions: who asks a hundred times at once isn't let guess a hundred times.
#[tokio::test]
async fn guesses_on_one_connection_are_limited_as_those_on_many_are() {
    let gateway = GatewayBox::with(two_routes);
    let mut tasks = JoinSet::new();
    let mut sender = connect_h2(&gateway, &mut tasks).await;
    let guesses: Vec<_> = (0..60)
        .map(|n| {
            let guess = registration(&format!("guess{n}"));
            sender.send_request(guess, true).expect("a stream").0
        })
        .collect();
    let mut judged = 0;
    for guess in guesses {
        let answer = soon("an answer", guess).await.expect("a response");
        match answer.status() {
            StatusCode::UNAUTHORIZED => judged += 1,
            // Too many failures, or more than may become tunnels of one connection.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {}
            status => panic!("{status}"),
        }
    }
    assert!((1..12).contains(&judged), "{judged} were judged");
}

/// An authorizer that never answers, and everybody who asks it.
async fn silent() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (format!("http://{address}/"), listener)
}

/// SECURITY, resets: a registration that is taken back is over at the gateway and at the authorizer, and
/// who does nothing else is sent away.
#[tokio::test]
async fn a_registration_that_is_taken_back_is_given_up() {
    let (url, authorizer) = silent().await;
    let gateway = GatewayBox::with(|config| {
        two_routes(config);
        let external = format!("external = {{ url = \"{url}\", timeout = \"60s\" }}");
        config.routes[0].allow = Some(vec![credential(&external)]);
    });
    let mut tasks = JoinSet::new();
    let mut sender = connect_h2(&gateway, &mut tasks).await;
    let mut asking: Vec<TcpStream> = Vec::new();
    // More than an authorizer is asked at a time, and then more than anybody takes back.
    for n in 0..=100 {
        let (_, mut stream) = sender.send_request(registration("secret"), false).expect("a stream");
        let (asked, _) = soon(&format!("question {n}"), authorizer.accept()).await.unwrap();
        asking.push(asked);
        stream.send_reset(Reason::CANCEL);
    }
    let err = soon("the end", until_refused(sender)).await;
    assert_eq!(err.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{err}");
}

async fn until_refused(sender: SendRequest<Bytes>) -> ::h2::Error {
    loop {
        match sender.clone().ready().await {
            Ok(_) => tokio::task::yield_now().await,
            Err(err) => return err,
        }
    }
}

/// A7: a connection that carries a tunnel may carry visitors, too, as those of a proxy in front do. A gateway
/// that stops lets them finish.
#[tokio::test]
async fn a_visitor_beside_a_tunnel_is_waited_for() {
    let gateway = GatewayBox::with(|config| {
        two_routes(config);
        config.routes[1].allow = Some(vec![bearer("shop-secret")]);
    });
    let mut tasks = JoinSet::new();
    let mut sender = connect_h2(&gateway, &mut tasks).await;
    let (response, stream) =
        sender.send_request(registration("blog-secret"), false).expect("a stream");
    let response = soon("an answer", response).await.expect("a response");
    let inside = Nested::new(stream, response.into_body(), ());
    let mut backend = Peer::answering(inside, &[]).await;
    backend.ping().await;
    gateway.until_registered(1).await;

    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let (leave, answers) = tokio::sync::watch::channel(false);
    let answer = move |_: Request<Body>| {
        let _ = asked.send(());
        let mut answers = answers.clone();
        async move {
            let _ = answers.wait_for(|answers| *answers).await;
            Response::new(String::from("whole"))
        }
    };
    let mut config = gateway.client_config();
    config.via = ptth_client::config::Via::Upgrade;
    config.authorization = Some(ptth_client::config::Authorization::Fixed(
        ptth_client::config::Value::parse("Bearer shop-secret").expect("a value"),
    ));
    config.tunnels = 1;
    let _shop = Backend::start(config, Function(answer));
    gateway.until_registered(2).await;
    let ask = Request::get("https://shop.example.test/").body(()).expect("a request");
    let (response, _) = sender.send_request(ask, true).expect("a stream");
    soon("the request", was_asked.recv()).await;
    gateway.order(Order::Stop);
    soon("the end of listening", async {
        while TcpStream::connect(gateway.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Long enough for a gateway that waits for nobody.
    backend.ping().await;
    leave.send(true).expect("somebody waits");
    let answer = h2::read(response).await;
    assert_eq!((answer.status, answer.text(), answer.complete), (200, "whole".to_owned(), true));
}
