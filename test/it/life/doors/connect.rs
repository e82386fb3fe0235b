//! The door over HTTP/2: a tunnel inside one stream.

use http::Response;
use ptth_link::nested::Nested;
use ptth_test::service::service;
use tokio::io::DuplexStream;
use tokio_rustls::server::TlsStream;

use super::*;

/// A front by HTTP/2 that answers with `answer`; behind a 200 it is a gateway.
fn front_h2<F>(fake: &Fake, tls: &Tls, told: &UnboundedSender<String>, extended: bool, answer: F)
where
    F: Fn() -> Response<()> + Send + Sync + 'static,
{
    let (tls, told, answer) = (tls.clone(), told.clone(), Arc::new(answer));
    fake.put(PLACE, move |io, _| {
        let (tls, told, answer) = (tls.clone(), told.clone(), answer.clone());
        async move {
            let Ok(stream) = tls.accept(io).await else { return };
            let mut builder = h2::server::Builder::new();
            if extended {
                builder.enable_connect_protocol();
            }
            let mut connection: h2::server::Connection<TlsStream<DuplexStream>, Bytes> =
                builder.handshake(stream).await.unwrap();
            let mut asking = tokio::task::JoinSet::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let protocol = request.extensions().get::<h2::ext::Protocol>().cloned();
                let _ = told.send(format!(
                    "{} {} {} {:?}",
                    request.method(),
                    request.uri(),
                    protocol.map_or("-".to_owned(), |protocol| protocol.as_str().to_owned()),
                    request.headers()
                ));
                let response = answer();
                let opened = response.status().is_success();
                let send = respond.send_response(response, !opened).unwrap();
                if opened {
                    let io = Nested::new(send, request.into_body(), ());
                    asking.spawn(ask(io, told.clone()));
                }
            }
        }
    });
}

fn opened() -> Response<()> {
    Response::builder().header("alpn", "h2").body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_registration_by_extended_connect_is_what_the_draft_says_and_the_tunnel_is_inside() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"h2"]));
    let (told, mut story) = story();
    front_h2(&fake, &tls, &told, true, opened);
    let mut config = config(&tls);
    config.via = Via::Connect;
    config.host = "example.test".to_owned();
    config.asked_host = Some("example.test".to_owned());
    let guest = Guest::start(&process(config), fake.clone(), Demo);
    let asked = next(&mut story).await;
    let expected =
        "CONNECT https://example.test/.well-known/ptth/https%3A%2F%2Fexample.test/ ptth ";
    assert!(asked.starts_with(expected), "{asked}");
    assert!(
        asked.contains("\"alpn\": \"h2\"") && asked.contains("\"2ptth-instance\": "),
        "{asked}"
    );
    assert!(asked.contains("\"authorization\": \"Bearer right\""), "{asked}");
    assert_eq!(next(&mut story).await, POSSIBLE);
    guest.stop();
    soon("an orderly end", guest.ended()).await.expect("an orderly end");
}

/// What runs on a tunnel that leaves comes through to its last byte.
#[tokio::test(start_paused = true)]
async fn a_tunnel_inside_a_stream_finishes_what_runs() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"h2"]));
    let (told, mut story) = story();
    let (acceptor, events) = (tls.clone(), told.clone());
    fake.put(PLACE, move |io, _| {
        let (tls, told) = (acceptor.clone(), events.clone());
        async move {
            let stream = tls.accept(io).await.unwrap();
            let mut builder = h2::server::Builder::new();
            builder.enable_connect_protocol();
            let mut connection: h2::server::Connection<_, Bytes> =
                builder.handshake(stream).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let send = respond.send_response(opened(), false).unwrap();
            let io = Nested::new(send, request.into_body(), ());
            let outer = async { while connection.accept().await.is_some() {} };
            let inner = async {
                let (mut sender, connection) = h2::client::handshake(io).await.unwrap();
                let request = Request::get("https://example.test/").body(()).unwrap();
                let (response, _) = sender.send_request(request, true).unwrap();
                let asking = async {
                    let mut body = response.await.unwrap().into_body();
                    let mut sum = 0;
                    while let Some(data) = body.data().await {
                        let data = data.unwrap();
                        sum += data.len();
                        body.flow_control().release_capacity(data.len()).unwrap();
                    }
                    let _ = told.send(format!("{sum} bytes"));
                    drop(sender);
                };
                let (ended, ()) = tokio::join!(connection, asking);
                let _ = told.send(format!("{ended:?}"));
            };
            tokio::join!(outer, inner);
            let _ = told.send("outer ended".to_owned());
        }
    });
    let mut config = config(&tls);
    config.via = Via::Connect;
    let (begun, mut begins) = unbounded_channel();
    let (go, wait) = tokio::sync::watch::channel(false);
    let slow = service(move |_: Request<ptth_client::Body>| {
        let (begun, mut wait) = (begun.clone(), wait.clone());
        async move {
            let _ = begun.send(());
            let _ = wait.wait_for(|go| *go).await;
            let body = http_body_util::Full::new(Bytes::from(vec![b'x'; 3_000_000]));
            Ok::<_, std::convert::Infallible>(Response::new(body))
        }
    });
    let guest = Guest::start(&process(config), fake.clone(), slow);
    soon("the request", begins.recv()).await;
    guest.stop();
    go.send(true).unwrap();
    assert_eq!(next(&mut story).await, "3000000 bytes");
    soon("an orderly end", guest.ended()).await.expect("an orderly end");
    assert_eq!(next(&mut story).await, "Ok(())");
    assert_eq!(next(&mut story).await, "outer ended");
}

/// What isn't spoken there, and what is refused there.
#[tokio::test(start_paused = true)]
async fn who_does_not_take_extended_connect_is_told_from_who_refuses() {
    type Case<'a> = (&'a [&'a [u8]], bool, u16, bool, &'a str);
    let cases: [Case<'_>; 5] = [
        (&[b"h2"], false, 200, false, "RFC 8441"),
        (&[], true, 200, false, "RFC 8441"),
        (&[b"http/1.1"], true, 200, false, "no 2ptth gateway"),
        (&[b"h2"], true, 404, false, "no 2ptth gateway"),
        (&[b"h2"], true, 403, true, "403 Forbidden"),
    ];
    for (alpn, extended, status, refused, words) in cases {
        let (fake, tls) = (Fake::default(), Tls::speaking(alpn));
        let (told, _story) = story();
        front_h2(&fake, &tls, &told, extended, move || {
            Response::builder().status(status).body(()).unwrap()
        });
        let mut config = config(&tls);
        config.via = Via::Connect;
        let guest = Guest::start(&process(config), fake.clone(), Demo);
        let stopped = guest.ended().await.expect_err(words);
        assert_eq!(matches!(stopped, Stopped::Refused(..)), refused, "{stopped:?}");
        assert!(stopped.to_string().contains(words), "{stopped}");
    }
}

/// By this way, too.
#[tokio::test(start_paused = true)]
async fn silence_on_the_outer_connection_is_noticed_and_the_client_comes_back() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"h2"]));
    let (told, mut story) = story();
    front_h2(&fake, &tls, &told, true, || Response::builder().status(502).body(()).unwrap());
    let mut config = config(&tls);
    config.via = Via::Connect;
    let _guest = Guest::start(&process(config), fake.clone(), Demo);
    sleep(OUTAGE).await;
    let (acceptor, silent) = (tls.clone(), told.clone());
    fake.put(PLACE, move |io, n| {
        let (tls, told) = (acceptor.clone(), silent.clone());
        async move {
            let _ = told.send("silence".to_owned());
            // Before SETTINGS, or without even a handshake.
            let stream = if n % 2 == 0 { None } else { tls.accept(io).await.ok() };
            std::future::pending::<()>().await;
            drop(stream);
        }
    });
    while next(&mut story).await != "silence" {}
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(next(&mut story).await, "silence");
        assert!(begun.elapsed() <= NOTICED, "{:?}", begun.elapsed());
    }
    front_h2(&fake, &tls, &told, true, opened);
    while next(&mut story).await != POSSIBLE {}
}
