//! The exchange, over both kinds of visitors, through the real gateway and client.

mod bodies;
mod duplex;
mod early;
mod events;
mod fields;
mod interim;
mod leave;
mod many;
mod retry;
mod status;
mod target;
mod tcp;
mod upgrade;
mod websocket;

use ptth_test::origin::{read_until, until_closed};
use ptth_test::{Backend, GatewayBox, H1, OriginBox, soon};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

#[tokio::test]
async fn a_get_crosses_the_tunnel() {
    let gateway = GatewayBox::start();
    let answer = H1::get(&gateway, "/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("There is no upstream available"), "{}", answer.text());
    let _backend = Backend::demo(&gateway).await;
    let answer = H1::get(&gateway, "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Transmission is possible!\n"));
}

/// A gateway, a backend, an origin, and what the origin told the test.
struct Path<T> {
    gateway: GatewayBox,
    #[allow(dead_code, reason = "held for its drop")]
    backend: Backend,
    #[allow(dead_code, reason = "held for its drop")]
    origin: OriginBox,
    told: UnboundedReceiver<T>,
}

impl<T> Path<T> {
    async fn new(gateway: GatewayBox, origin: OriginBox, told: UnboundedReceiver<T>) -> Self {
        let backend = Backend::of(&gateway, &origin).await;
        Self { gateway, backend, origin, told }
    }

    /// What the origin says next.
    async fn told(&mut self) -> T {
        soon("a word of the origin", self.told.recv()).await.expect("the origin lives")
    }
}

/// A path to an origin that shows each head and answers it with `answer`; it never reads a body.
async fn answering(answer: impl Into<Vec<u8>>) -> Path<Vec<u8>> {
    let (tell, told) = unbounded_channel();
    let answer = answer.into();
    let origin = OriginBox::raw(move |mut socket, _| {
        let (tell, answer) = (tell.clone(), answer.clone());
        async move {
            loop {
                let head = read_until(&mut socket, b"\r\n\r\n").await;
                if head.is_empty() || tell.send(head).is_err() {
                    return;
                }
                if socket.write_all(&answer).await.is_err() {
                    return until_closed(&mut socket).await;
                }
            }
        }
    })
    .await;
    Path::new(GatewayBox::start(), origin, told).await
}

/// A small answer.
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The request line of a head.
fn request_line(head: &[u8]) -> String {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line).into_owned()
}

/// The values of a field of a head, in order.
fn values(head: &[u8], name: &str) -> Vec<Vec<u8>> {
    let head = head.strip_suffix(b"\r\n\r\n").unwrap_or(head);
    head.split(|b| *b == b'\n')
        .skip(1)
        .filter_map(|line| {
            let colon = line.iter().position(|b| *b == b':')?;
            let (field, value) = line.split_at(colon);
            let is_it = field.eq_ignore_ascii_case(name.as_bytes());
            is_it.then(|| value[1..].trim_ascii().to_vec())
        })
        .collect()
}

/// The same, as text.
fn texts(head: &[u8], name: &str) -> Vec<String> {
    values(head, name).iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}
