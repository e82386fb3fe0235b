//! From the label to a registration by HTTP: when, and above all when not.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, ReadBuf};

use super::*;

/// Somebody in between who makes nothing of the label: by the alert, by silence about it, or by cutting.
#[tokio::test(start_paused = true)]
async fn where_the_label_does_not_get_through_the_client_registers_by_http_and_remembers() {
    for way in ["refuses", "ignores", "cuts"] {
        let fake = Fake::default();
        let tls = match way {
            "ignores" => Tls::speaking(&[]),
            _ => Tls::speaking(&[b"http/1.1"]),
        };
        let (told, mut story) = story();
        let (seen, through) = (tls.clone(), told.clone());
        let labels = Arc::new(AtomicUsize::new(0));
        let counted = labels.clone();
        fake.put(PLACE, move |io, _| {
            let (tls, told, labels) = (seen.clone(), through.clone(), counted.clone());
            async move {
                let mut io = Peeked::new(io);
                let labelled = io.peek().await.windows(5).any(|window| window == b"2ptth");
                labels.fetch_add(usize::from(labelled), Ordering::Relaxed);
                if labelled && way == "cuts" {
                    return;
                }
                let Ok(mut stream) = tls.accept(io).await else { return };
                if read_head(&mut stream).await.is_empty() {
                    return;
                }
                stream.write_all(OPEN.as_bytes()).await.unwrap();
                // It breaks once it worked, so that the client dials again.
                tokio::select! {
                    () = ask(stream, told) => {}
                    () = sleep(Duration::from_secs(61)) => {}
                }
            }
        });
        let mut config = config(&tls);
        config.token = Some(Token::generate());
        let _guest = Guest::start(&process(config), fake.clone(), Demo);
        let begun = Instant::now();
        assert_eq!(next(&mut story).await, POSSIBLE, "{way}");
        assert!(begun.elapsed() < Duration::from_millis(100), "at once: {:?}", begun.elapsed());
        assert_eq!(labels.load(Ordering::Relaxed), 1, "{way}");
        for _ in 0..5 {
            assert_eq!(later(&mut story).await, POSSIBLE, "{way}");
        }
        assert_eq!(labels.load(Ordering::Relaxed), 1, "{way}: it remembers");
        for _ in 0..5 {
            assert_eq!(later(&mut story).await, POSSIBLE, "{way}");
        }
        assert_eq!(labels.load(Ordering::Relaxed), 2, "{way}: but not for ever");
    }
}

/// A connection of which the first bytes are looked at before they are read.
struct Peeked<IO> {
    io: IO,
    first: Vec<u8>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Peeked<IO> {
    fn new(io: IO) -> Self {
        Self { io, first: Vec::new() }
    }

    async fn peek(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 16 * 1024];
        let count = self.io.read(&mut bytes).await.unwrap_or(0);
        bytes.truncate(count);
        self.first = bytes.clone();
        bytes
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Peeked<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        let rest = self.first.split_off(count);
        buf.put_slice(&std::mem::replace(&mut self.first, rest));
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Peeked<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Whoever can't be verified gets no second chance, and above all no authorization.
#[tokio::test(start_paused = true)]
async fn a_certificate_that_cannot_be_verified_is_no_reason_to_register_by_http() {
    for (via, token) in
        [(Via::Auto, true), (Via::Auto, false), (Via::Upgrade, true), (Via::Connect, true)]
    {
        let (fake, tls) = (Fake::default(), Tls::speaking(&[b"2ptth", b"h2", b"http/1.1"]));
        let (told, mut story) = story();
        front(&fake, &tls, &told, |_, _| OPEN.to_owned());
        let mut config = config(&tls);
        config.trust = Trust::Pin([7; 32]);
        config.via = via;
        config.token = token.then(Token::generate);
        let guest = Guest::start(&process(config), fake.clone(), Demo);
        let stopped = guest.ended().await.expect_err("an impostor");
        assert!(matches!(stopped, Stopped::Unknown(DialError::Unknown(_))), "{stopped:?}");
        assert_eq!(fake.dialled().len(), 1);
        drop(fake);
        drop(told);
        assert_eq!(story.try_recv().ok(), None, "not a word of HTTP");
    }
}

/// A token can't be shown by HTTP, and mustn't be: who has only that one hears of the label.
#[tokio::test(start_paused = true)]
async fn with_a_token_alone_nothing_is_said_by_http() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    let (told, mut story) = story();
    front(&fake, &tls, &told, |_, _| OPEN.to_owned());
    let mut config = config(&tls);
    config.token = Some(Token::generate());
    config.authorization = None;
    let guest = Guest::start(&process(config), fake.clone(), Demo);
    let stopped = guest.ended().await.expect_err("no gateway");
    assert!(matches!(stopped, Stopped::Unknown(DialError::NoGateway)), "{stopped:?}");
    assert!(stopped.to_string().contains("--authorization-file"), "{stopped}");
    assert!(story.try_recv().is_err());
}

/// With an authorization and no token, the label would only be a detour.
#[tokio::test(start_paused = true)]
async fn with_an_authorization_alone_the_client_registers_at_once() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"2ptth", b"http/1.1"]));
    let (told, mut story) = story();
    front(&fake, &tls, &told, |_, _| OPEN.to_owned());
    let _guest = Guest::start(&process(config(&tls)), fake.clone(), Demo);
    assert!(next(&mut story).await.starts_with("GET /.well-known/ptth/https%3A%2F%2F"));
    assert_eq!(next(&mut story).await, POSSIBLE);
    assert_eq!(fake.dialled().len(), 1);
}
