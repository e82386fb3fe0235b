//! A visitor who speaks HTTP/2, and a request that either kind of visitor can send.

use ::h2::client::{ResponseFuture, SendRequest};
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use crate::visitor::handshake;
use crate::{Answer, GatewayBox, H1, connect_h2, soon};

/// An HTTP/2 connection, driven until this is dropped.
#[derive(Debug)]
pub struct H2 {
    /// Opens streams.
    pub sender: SendRequest<Bytes>,
    #[allow(dead_code, reason = "held for its drop, which cuts the connection")]
    driver: JoinSet<()>,
}

impl H2 {
    /// Connects.
    pub async fn connect(gateway: &GatewayBox) -> Self {
        let mut driver = JoinSet::new();
        let sender = connect_h2(gateway, &mut driver).await;
        Self { sender, driver }
    }

    /// On a connection that is there already.
    pub async fn over<IO>(io: IO) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut driver = JoinSet::new();
        let sender = handshake(io, &mut driver).await;
        Self { sender, driver }
    }

    /// Opens a stream; `end` if there is no body.
    pub async fn open(
        &self,
        request: Request<()>,
        end: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let sender = soon("a stream", self.sender.clone().ready()).await;
        let mut sender = sender.expect("the gateway takes streams");
        sender.send_request(request, end).expect("a request that can be sent")
    }

    /// GET, with nothing read yet.
    pub async fn get(&self, path: &str) -> ResponseFuture {
        self.open(Ask::get(path).head(), true).await.0
    }

    /// Sends `ask` and reads the response; status 0 if there was none.
    pub async fn ask(&self, ask: &Ask) -> Answer {
        let end = ask.body.is_empty() && ask.trailers.is_empty();
        let (response, stream) = self.open(ask.head(), end).await;
        let upload = async {
            if !end {
                upload(stream, ask).await;
            }
        };
        let (_, answer) = tokio::join!(upload, read(response));
        answer
    }
}

async fn upload(mut stream: SendStream<Bytes>, ask: &Ask) {
    let trailers = ask.trailers.clone();
    let sent = send(&mut stream, Bytes::from(ask.body.clone()), trailers.is_empty()).await;
    if sent && !trailers.is_empty() {
        let _ = stream.send_trailers(trailers);
    }
}

/// Sends `data` as the window allows. False if the gateway doesn't want it any more.
pub async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) -> bool {
    while !data.is_empty() {
        let Some(room) = room(stream, data.len()).await else { return false };
        let part = data.split_to(room.min(data.len()));
        if stream.send_data(part, end && data.is_empty()).is_err() {
            return false;
        }
    }
    true
}

/// How many of `wanted` bytes may be sent now, at least one. `None` if the gateway doesn't want them any more.
pub async fn room(stream: &mut SendStream<Bytes>, wanted: usize) -> Option<usize> {
    stream.reserve_capacity(wanted);
    // What is there already counts: h2 tells of growth alone, and what a shorter piece left over would wait for
    // credit that nothing brings.
    let room = std::future::poll_fn(|cx| match stream.capacity() {
        0 => stream.poll_capacity(cx),
        room => std::task::Poll::Ready(Some(Ok(room))),
    });
    room.await?.ok()
}

/// Reads a whole response.
pub async fn read(response: ResponseFuture) -> Answer {
    soon("a response", async {
        match response.await {
            Ok(response) => read_body(response).await,
            Err(_) => Answer {
                status: 0,
                fields: HeaderMap::new(),
                body: Vec::new(),
                complete: false,
                trailers: HeaderMap::new(),
            },
        }
    })
    .await
}

/// Reads the rest of a response whose head is here.
pub async fn read_body(response: Response<RecvStream>) -> Answer {
    let (head, mut stream) = response.into_parts();
    let mut answer = Answer {
        status: head.status.as_u16(),
        fields: head.headers,
        body: Vec::new(),
        complete: true,
        trailers: HeaderMap::new(),
    };
    while let Some(data) = soon("a body", stream.data()).await {
        let Ok(data) = data else {
            answer.complete = false;
            return answer;
        };
        let _ = stream.flow_control().release_capacity(data.len());
        answer.body.extend_from_slice(&data);
    }
    match soon("the end of a body", stream.trailers()).await {
        Ok(trailers) => answer.trailers = trailers.unwrap_or_default(),
        Err(_) => answer.complete = false,
    }
    answer
}

/// How a visitor speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

impl Dialect {
    /// What must hold for one must hold for the other.
    pub const BOTH: [Self; 2] = [Self::H1, Self::H2];

    /// Sends `ask` on a connection of its own and reads the response.
    pub async fn ask(self, gateway: &GatewayBox, ask: &Ask) -> Answer {
        match self {
            Self::H1 => {
                let mut visitor = H1::connect(gateway).await;
                visitor.send(ask.text()).await;
                visitor.answer_to(ask.method.as_str()).await
            }
            Self::H2 => H2::connect(gateway).await.ask(ask).await,
        }
    }
}

/// A request, before it is put into a dialect.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub path: String,
    /// The fields but for Host and those that frame.
    pub fields: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers; with any, an HTTP/1.1 body is chunked.
    pub trailers: HeaderMap,
}

impl Ask {
    /// A request without fields or body.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.parse().expect("a method"),
            path: path.to_owned(),
            fields: HeaderMap::new(),
            body: Vec::new(),
            trailers: HeaderMap::new(),
        }
    }

    /// GET.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// POST.
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new("POST", path) }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        let value = http::HeaderValue::from_bytes(value.as_ref()).expect("a value");
        self.fields.append(http::HeaderName::from_static(name), value);
        self
    }

    /// The head in HTTP/2.
    pub fn head(&self) -> Request<()> {
        let uri = format!("https://example.test{}", self.path);
        let mut request = Request::builder().method(self.method.clone()).uri(uri);
        if !self.body.is_empty() && self.trailers.is_empty() {
            request = request.header("content-length", self.body.len());
        }
        let mut request = request.body(()).expect("a request");
        request.headers_mut().extend(self.fields.clone());
        request
    }

    /// The whole of it in HTTP/1.1.
    pub fn text(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: example.test\r\n", self.method, self.path);
        if !self.trailers.is_empty() {
            text.push_str("Transfer-Encoding: chunked\r\n");
        } else if !self.body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        let mut text = text.into_bytes();
        write_fields(&mut text, &self.fields);
        if self.trailers.is_empty() {
            text.extend_from_slice(&self.body);
            return text;
        }
        if !self.body.is_empty() {
            text.extend_from_slice(format!("{:x}\r\n", self.body.len()).as_bytes());
            text.extend_from_slice(&self.body);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\n");
        write_fields(&mut text, &self.trailers);
        text
    }
}

fn write_fields(text: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
}
