//! The client's ways in that don't need the ALPN label: registrations by HTTP. The far side is made of raw
//! bytes up to the tunnel, so that client and gateway can't agree on a mistake.

mod authorization;
mod connect;
mod fallback;
mod real;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use ptth_client::Stopped;
use ptth_client::config::{Authorization, Config, Gateway, Trust, Value, Via};
use ptth_client::demo::Demo;
use ptth_client::dial::DialError;
use ptth_link::token::Token;
use ptth_test::fake::Tls;
use ptth_test::origin::read_head;
use ptth_test::room::{Guest, process};
use ptth_test::{Fake, soon};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep};

const PLACE: &str = "example.test:443";
const OPEN: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ptth\r\nALPN: h2\r\n\r\n";
/// How soon after the gateway its client is there, and how soon a silence is noticed.
const BACK: Duration = Duration::from_secs(2);
const NOTICED: Duration = Duration::from_secs(25);
/// Long enough for pauses that double to reach their longest.
const OUTAGE: Duration = Duration::from_secs(200);

fn config(tls: &Tls) -> Config {
    let mut config = Config::new(Gateway::parse(PLACE).unwrap());
    config.trust = Trust::Pin(tls.pin);
    config.tunnels = 1;
    config.authorization = Some(Authorization::Fixed(Value::parse("Bearer right").unwrap()));
    config
}

/// What happened at a front: heads that came, and what our client answered behind the door.
fn story() -> (UnboundedSender<String>, UnboundedReceiver<String>) {
    unbounded_channel()
}

async fn next(story: &mut UnboundedReceiver<String>) -> String {
    soon("the next event", story.recv()).await.expect("an event")
}

/// The same, where the clock is paused and a minute is nothing.
async fn later(story: &mut UnboundedReceiver<String>) -> String {
    let event = tokio::time::timeout(Duration::from_secs(3600), story.recv()).await;
    event.expect("within the hour").expect("an event")
}

/// The gateway's side behind a door that is open: asks once, tells the answer, and stays.
async fn ask(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    told: UnboundedSender<String>,
) {
    // Transposed roles: it accepted the connection, and yet it asks.
    let (sender, connection) = match h2::client::handshake(io).await {
        Ok(both) => both,
        Err(_) => return,
    };
    let asking = async move {
        let mut sender = sender.ready().await?;
        let request = Request::get("https://example.test/").body(()).unwrap();
        let (response, _) = sender.send_request(request, true)?;
        let mut body = response.await?.into_body();
        let data: Bytes = body.data().await.unwrap()?;
        let _ = told.send(String::from_utf8_lossy(&data).into_owned());
        std::future::pending::<()>().await;
        Ok::<_, h2::Error>(())
    };
    tokio::select! {
        _ = connection => {}
        _ = asking => {}
    }
}

/// A front by HTTP/1.1: reads heads and answers them with what `answer` says for each; behind a 101 it is
/// a gateway.
fn front<F>(fake: &Fake, tls: &Tls, told: &UnboundedSender<String>, answer: F)
where
    F: Fn(&str, usize) -> String + Send + Sync + 'static,
{
    let (tls, told, answer) = (tls.clone(), told.clone(), Arc::new(answer));
    let heads = Arc::new(AtomicUsize::new(0));
    fake.put(PLACE, move |io, _| {
        let (tls, told, answer, heads) = (tls.clone(), told.clone(), answer.clone(), heads.clone());
        async move {
            let Ok(stream) = tls.accept(io).await else { return };
            assert!(stream.get_ref().1.peer_certificates().is_none(), "no certificate of ours");
            // What isn't flushed in between comes in one piece: the head, and the tunnel's first bytes.
            let mut stream = BufWriter::new(stream);
            let head = read_head(&mut stream).await;
            if head.is_empty() {
                return;
            }
            let _ = told.send(head.clone());
            let answer = answer(&head, heads.fetch_add(1, Ordering::Relaxed));
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.starts_with("HTTP/1.1 101") {
                return ask(stream, told).await;
            }
            let _ = stream.shutdown().await;
        }
    });
}

const POSSIBLE: &str = "Transmission is possible!\n";

/// The request by the byte, and a tunnel whose first bytes come with the 101.
#[tokio::test(start_paused = true)]
async fn a_registration_by_upgrade_is_what_the_draft_says_and_the_tunnel_follows() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    let (told, mut story) = story();
    front(&fake, &tls, &told, |_, _| OPEN.to_owned());
    let mut config = config(&tls);
    config.via = Via::Upgrade;
    config.name = Some("bob".to_owned());
    let guest = Guest::start(&process(config), fake.clone(), Demo);
    let head = next(&mut story).await;
    let mut lines = head.trim_end().split("\r\n");
    assert_eq!(lines.next(), Some("GET /.well-known/ptth/https%3A%2F%2Fexample.test/ HTTP/1.1"));
    let mut fields: Vec<_> = lines.map(str::to_ascii_lowercase).collect();
    fields.sort();
    let instance = fields.remove(0);
    assert!(instance.starts_with("2ptth-instance: ") && instance.ends_with(".0"), "{instance}");
    let expected = [
        "2ptth-name: bob",
        "alpn: h2",
        "authorization: bearer right",
        "connection: upgrade",
        "host: example.test",
        "upgrade: ptth",
    ];
    assert_eq!(fields, expected);
    assert_eq!(next(&mut story).await, POSSIBLE);
    guest.stop();
    guest.ended().await.expect("an orderly end");
}

/// What can't succeed ends the client, with the gateway's sentence.
#[tokio::test(start_paused = true)]
async fn each_refusal_that_is_final_ends_the_client_with_its_reason() {
    let cases = [
        (
            "400 Bad Request",
            "2ptth-reason: no such list\r\n",
            true,
            "400 Bad Request, \"no such list\"",
        ),
        (
            "401 Unauthorized",
            "WWW-Authenticate: Bearer\r\n",
            true,
            "401 Unauthorized, \"the page\"",
        ),
        ("403 Forbidden", "2ptth-reason: not yours\r\n", true, "403 Forbidden, \"not yours\""),
        ("409 Conflict", "2ptth-reason: taken\r\n", true, "409 Conflict, \"taken\""),
        ("404 Not Found", "", false, "no 2ptth gateway"),
        ("405 Method Not Allowed", "", false, "no 2ptth gateway"),
        ("426 Upgrade Required", "", false, "no 2ptth gateway"),
        ("200 OK", "Upgrade: ptth\r\n", false, "no 2ptth gateway"),
        ("301 Moved Permanently", "Location: https://x/\r\n", false, "no 2ptth gateway"),
    ];
    for (status, fields, refused, words) in cases {
        let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
        let (told, _story) = story();
        front(&fake, &tls, &told, move |_, _| {
            format!("HTTP/1.1 {status}\r\n{fields}Content-Length: 9\r\n\r\nthe page\n")
        });
        let guest = Guest::start(&process(config(&tls)), fake.clone(), Demo);
        let stopped = guest.ended().await.expect_err(status);
        assert_eq!(matches!(stopped, Stopped::Refused(..)), refused, "{status}: {stopped:?}");
        assert!(stopped.to_string().contains(words), "{status}: {stopped}");
        assert_eq!(fake.dialled().len(), 1, "{status}");
    }
}

/// What the far side says is bounded, in bytes and in time, and ends in another dial.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_none_or_does_not_end_is_given_up_and_tried_again() {
    let endless_page = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let huge = format!("HTTP/1.1 101 x\r\nA: {}\r\n\r\n", "a".repeat(100_000));
    let many = format!("HTTP/1.1 101 x\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let cases = [
        "",
        "HTTP/1.1 101 Switching",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        endless_page,
        &huge,
        &many,
    ];
    for answer in cases {
        let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
        let (given, acceptor) = (answer.to_owned(), tls.clone());
        let (told, mut story) = story();
        fake.put(PLACE, move |io, _| {
            let (answer, tls, told) = (given.clone(), acceptor.clone(), told.clone());
            async move {
                let Ok(mut stream) = tls.accept(io).await else { return };
                let _ = told.send(read_head(&mut stream).await);
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.flush().await;
                std::future::pending().await
            }
        });
        let mut config = config(&tls);
        config.via = Via::Upgrade;
        let _guest = Guest::start(&process(config), fake.clone(), Demo);
        let begun = Instant::now();
        for _ in 0..2 {
            assert!(next(&mut story).await.starts_with("GET "));
        }
        assert!(begun.elapsed() <= Duration::from_secs(11), "{answer:?}: {:?}", begun.elapsed());
    }
}

/// A front whose gateway is away, for longer than any back-off takes, in each way in which fronts say so.
#[tokio::test(start_paused = true)]
async fn behind_a_front_the_client_is_back_within_two_seconds_of_its_gateway() {
    for down in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "522 x"] {
        let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
        let (told, mut story) = story();
        let up = Arc::new(Mutex::new(false));
        let is_up = up.clone();
        front(&fake, &tls, &told, move |_, _| match *is_up.lock().unwrap() {
            true => OPEN.to_owned(),
            false => format!("HTTP/1.1 {down}\r\nContent-Length: 0\r\n\r\n"),
        });
        let _guest = Guest::start(&process(config(&tls)), fake.clone(), Demo);
        sleep(OUTAGE).await;
        *up.lock().unwrap() = true;
        let back = Instant::now();
        while next(&mut story).await != POSSIBLE {}
        assert!(back.elapsed() <= BACK, "{down}: {:?}", back.elapsed());
    }
}

/// The gateway's own word about when to come again is kept.
#[tokio::test(start_paused = true)]
async fn who_has_no_room_is_asked_again_when_he_said() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
        let (told, mut story) = story();
        front(&fake, &tls, &told, move |_, n| match n {
            0 => format!("HTTP/1.1 {status}\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n"),
            1 => format!("HTTP/1.1 {status}\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n"),
            _ => OPEN.to_owned(),
        });
        let _guest = Guest::start(&process(config(&tls)), fake.clone(), Demo);
        next(&mut story).await;
        for seconds in [17, 60] {
            let begun = Instant::now();
            later(&mut story).await;
            let waited = begun.elapsed().as_secs_f64() - f64::from(seconds);
            assert!((0.0..1.0).contains(&waited), "{status}: {:?}", begun.elapsed());
        }
    }
}

/// Silence before the answer, and silence on the tunnel.
#[tokio::test(start_paused = true)]
async fn silence_behind_the_door_is_noticed_within_25_seconds() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    let (told, mut story) = story();
    let acceptor = tls.clone();
    fake.put(PLACE, move |io, n| {
        let (tls, told) = (acceptor.clone(), told.clone());
        async move {
            let _ = told.send(format!("dial {n}"));
            // One says nothing from the start, the next after the handshake, and so on.
            if n == 0 {
                return std::future::pending().await;
            }
            let Ok(mut stream) = tls.accept(io).await else { return };
            read_head(&mut stream).await;
            if n == 1 {
                return std::future::pending().await;
            }
            stream.write_all(OPEN.as_bytes()).await.unwrap();
            if n == 2 {
                return std::future::pending().await;
            }
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            if n == 3 {
                // SETTINGS came; then the line is dead.
                let mut connection = Box::pin(connection);
                let _ = tokio::time::timeout(Duration::from_secs(1), &mut connection).await;
                std::future::pending::<()>().await;
            }
            drop(sender);
        }
    });
    let mut config = config(&tls);
    config.via = Via::Upgrade;
    let _guest = Guest::start(&process(config), fake.clone(), Demo);
    assert_eq!(next(&mut story).await, "dial 0");
    for n in 1..=4 {
        let begun = Instant::now();
        assert_eq!(next(&mut story).await, format!("dial {n}"));
        assert!(begun.elapsed() <= NOTICED, "{n}: {:?}", begun.elapsed());
    }
}
