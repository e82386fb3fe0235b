//! What registrations do to whoever is beside them: on the same connection, from the same address, at the
//! authorizer.

use ::h2::Reason;
use http::{Method, Request, Response, StatusCode};
use ptth_client::Body;
use ptth_link::nested::Nested;
use ptth_server::Order;
use ptth_test::lab::Function;
use ptth_test::peer::Peer;
use ptth_test::{Backend, GatewayBox, connect_h2, h2, soon};
use tokio::io::AsyncReadExt;
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

/// Who asks a hundred times at once isn't let guess a hundred times.
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

/// A hundred guesses at once over many connections, from one address, at an authorizer that doesn't answer: it
/// hears of five. A registration that is taken back is over there, too, and was a guess all the same.
#[tokio::test]
async fn guesses_at_once_reach_the_authorizer_as_often_as_failures_are_free() {
    let (url, authorizer) = silent().await;
    let gateway = GatewayBox::with(|config| {
        two_routes(config);
        let external = format!("external = {{ url = \"{url}\", timeout = \"60s\" }}");
        config.routes[0].allow = Some(vec![credential(&external)]);
    });
    let mut tasks = JoinSet::new();
    let (mut guesses, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let mut sender = connect_h2(&gateway, &mut tasks).await;
        for n in 0..5 {
            let guess = registration(&format!("guess{n}"));
            let (response, stream) = sender.send_request(guess, false).expect("a stream");
            guesses.push(response);
            streams.push(stream);
        }
    }
    let mut asking = Vec::new();
    let mut accept = async || asking.push(authorizer.accept().await.expect("a question").0);
    let (mut refused, mut pending) = (0, JoinSet::new());
    guesses.into_iter().for_each(|guess| drop(pending.spawn(guess)));
    soon("the others are refused", async {
        while refused < 95 {
            tokio::select! {
                () = accept() => {}
                Some(answer) = pending.join_next() => {
                    let status = answer.unwrap().expect("an answer").status();
                    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                    refused += 1;
                }
            }
        }
    })
    .await;
    assert_eq!(asking.len(), 5, "questions");
    streams.iter_mut().for_each(|stream| stream.send_reset(Reason::CANCEL));
    for mut question in asking {
        let mut rest = Vec::new();
        soon("the end of a question", question.read_to_end(&mut rest)).await.expect("its end");
    }
}

/// A connection that carries a tunnel may carry visitors, too, as those of a proxy in front do. A gateway
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
