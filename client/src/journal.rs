//! One line for each exchange, on the terminal.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, VIA};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use ptth_link::count::{Count, Exchanges, Seconds};
use ptth_link::failure::{Failure, Party};
use ptth_link::logging::{Lines, first, millis, number};
use ptth_link::page;
use tokio::time::Instant;

use crate::watch::{Event, Hears, Watch};

/// Takes the lines. Cheap to clone; the default keeps none.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    lines: Lines,
    service: Option<Arc<str>>,
    counts: Arc<Counts>,
    watch: Option<Arc<dyn Watch>>,
}

/// What is counted of the exchanges of all services.
#[derive(Debug, Default)]
pub struct Counts {
    pub exchanges: Exchanges,
    /// From a request's head to the head of the service's response.
    pub head: Seconds,
    /// From there to the end.
    pub transfer: Seconds,
    /// Bytes of whole responses.
    pub bytes: Count,
}

impl Journal {
    /// Writes to `out`, from a thread that ends with the last clone of it.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self { lines: Lines::to(out), ..Self::default() }
    }

    /// The same journal, for one service. If there are several, its lines, and what the log says of its tunnels,
    /// begin with its name.
    pub fn of(&self, service: Option<&str>) -> Self {
        Self { service: service.map(Into::into), ..self.clone() }
    }

    /// The same journal; `watch` hears each exchange, too.
    pub fn watched(self, watch: Option<Arc<dyn Watch>>) -> Self {
        Self { watch, ..self }
    }

    /// Has an exchange heard, if anything hears.
    pub fn begin(&self, head: &Parts) -> Option<Arc<dyn Hears>> {
        self.watch.as_ref().map(|watch| watch.begin(self.service(), head))
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Waits for what was told, a second at most. Blocks.
    pub fn flush(&self) {
        self.lines.flush();
    }

    pub fn shown(&self, url: &str, origin: &str) {
        self.note(|text| text.extend([url, " -> ", origin]));
    }

    pub fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }

    fn note(&self, line: impl FnOnce(&mut String)) {
        self.lines.note(|text| {
            if let Some(service) = &self.service {
                text.extend([service, " "]);
            }
            line(text);
        });
    }
}

/// Why a response broke off.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    pub party: Party,
    pub why: &'static str,
}

#[derive(Debug)]
pub struct Exchange {
    begun: Instant,
    method: Method,
    target: Option<PathAndQuery>,
    visitor: Option<HeaderValue>,
    by: Option<HeaderValue>,
    pub id: Option<HeaderValue>,
    pub accept: Option<HeaderValue>,
    pub is_event_source: bool,
    pub hears: Option<Arc<dyn Hears>>,
}

impl Exchange {
    /// What the request says: never its query, which may hold secrets.
    pub fn new<B>(request: &Request<B>) -> Self {
        let field = |name| request.headers().get(name).cloned();
        Self {
            begun: Instant::now(),
            method: request.method().clone(),
            target: request.uri().path_and_query().cloned(),
            visitor: field(VISITOR),
            by: field(VIA),
            // A foreign gateway may pass on a visitor's field.
            id: field(REQUEST_ID).filter(|id| {
                id.len() <= LONGEST_ID && id.as_bytes().iter().all(u8::is_ascii_hexdigit)
            }),
            accept: field(ACCEPT),
            is_event_source: page::is_event_source(request.method(), request.headers()),
            hears: None,
        }
    }

    /// Tells what hears this exchange, if anything does.
    pub fn hear(&self, event: Event<'_>) {
        if let Some(hears) = &self.hears {
            hears.hear(event);
        }
    }

    pub fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// The time since the request came.
    pub fn waited(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The visitor, its version of HTTP, and the id of the request. A gateway that isn't ours may have passed on
    /// fields that its visitor wrote.
    fn who(&self, text: &mut String) {
        let fields = [(" visitor=", &self.visitor), (" http=", &self.by), (" id=", &self.id)];
        for (name, field) in fields {
            let value = field.as_ref().and_then(|field| field.to_str().ok()).unwrap_or_default();
            let value =
                if name == " http=" { value.split(' ').next().unwrap_or_default() } else { value };
            let sound = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
            if (1..=LONGEST_FIELD).contains(&value.len()) && value.bytes().all(sound) {
                text.extend([name, value]);
            }
        }
    }

    /// The response ended after so many bytes, or broke off. The service took `head` for the response's head and `body`
    /// for the parts of the body; the rest of the time is the visitor's.
    pub fn ended(
        &self,
        journal: &Journal,
        status: StatusCode,
        result: Result<u64, &Broken>,
        [head, body]: [Duration; 2],
    ) {
        self.hear(Event::Ended(None, result.err().map(|it| it.why)));
        let counts = &journal.counts;
        counts.exchanges.add(Some(status), result.err().map(|it| it.party));
        counts.head.observe(head);
        counts.transfer.observe(self.waited().saturating_sub(head));
        counts.bytes.add(result.unwrap_or_default());
        self.tell(journal, Some(status), |text| {
            match result {
                Ok(bytes) => {
                    number(text, bytes);
                    text.push_str(" B ");
                }
                Err(_) => text.push_str("broke off after "),
            }
            let whole = self.waited();
            millis(text, whole);
            let visitor = whole.saturating_sub(head + body);
            for (label, time) in [(" ms (head ", head), (", body ", body), (", visitor ", visitor)]
            {
                text.push_str(label);
                millis(text, time);
            }
            text.push(')');
            text.extend(result.err().into_iter().flat_map(|it| [": ", it.why]));
        });
    }

    /// The client answered, since the service didn't; or the visitor took the request back before there was an answer.
    pub fn unanswered(&self, journal: &Journal, own: Option<(Failure, &str)>) {
        let row = own.map(|(failure, _)| failure.row());
        let why = own.map_or("taken back by the visitor", |(_, why)| why);
        self.hear(Event::Ended(row.map(|row| row.status), Some(why)));
        let party = row.map_or(Party::Visitor, |row| row.party);
        journal.counts.exchanges.add(row.map(|row| row.status), Some(party));
        self.tell(journal, own.map(|(failure, _)| failure.row().status), |text| {
            text.push_str(if own.is_some() { "by 2ptth" } else { "taken back by the visitor" });
            text.push_str(" after ");
            millis(text, self.waited());
            text.push_str(" ms");
            text.extend(
                own.into_iter().flat_map(|(failure, why)| [": ", failure.code(), ", ", why]),
            );
        });
    }

    /// Method, path and status, if there is one, then what `rest` appends, and the visitor.
    fn tell(&self, journal: &Journal, status: Option<StatusCode>, rest: impl FnOnce(&mut String)) {
        journal.note(|text| {
            let path = self.target.as_ref().map_or("", PathAndQuery::path);
            text.extend([first(self.method.as_str(), LONGEST_METHOD), " "]);
            // A String takes all that is written.
            let _ = write!(text, "{:?} ", first(path, LONGEST_PATH));
            if let Some(status) = status {
                text.extend([status.as_str(), " "]);
            }
            rest(text);
            self.who(text);
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Of one that was told already this counts no more.
        self.hear(Event::Ended(None, Some("the tunnel is gone")));
    }
}

const LONGEST_PATH: usize = 200;
const LONGEST_METHOD: usize = 20;
/// An IPv6 address with an IPv4 one in it; ids are shorter.
const LONGEST_FIELD: usize = 45;
/// Twice the digits of our gateway's.
const LONGEST_ID: usize = 32;
/// Names the request in the gateway's log.
const REQUEST_ID: HeaderName = HeaderName::from_static("2ptth-request-id");
const VISITOR: HeaderName = HeaderName::from_static("x-real-ip");

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Pipe(mpsc::Sender<String>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_one_service_of_several_says_which() {
        let (sender, written) = mpsc::channel();
        let journal = Journal::to(Pipe(sender)).of(Some("blog"));
        let request = Request::builder().uri("/a").body(()).unwrap();
        Exchange::new(&request).ended(&journal, StatusCode::OK, Ok(3), [Duration::ZERO; 2]);
        let line = written.recv().unwrap();
        assert!(line.contains("Z blog GET \"/a\" 200 3 B "), "{line}");
        assert!(line.ends_with(")\n"), "{line}");
    }

    /// The times, the visitor, and the failure; but nothing that a visitor makes up.
    #[tokio::test(start_paused = true)]
    async fn a_line_says_what_to_look_for() {
        let (sender, written) = mpsc::channel();
        let journal = Journal::to(Pipe(sender));
        let request = |visitor: &str, via: &str, id: &str| {
            let request = Request::builder().uri("/a");
            let request = request.header("x-real-ip", visitor).header("via", via);
            Exchange::new(&request.header(REQUEST_ID, id).body(()).unwrap())
        };
        let after = |line: String| line.split_once("Z ").unwrap().1.to_owned();
        let exchange = request("2001:db8::7", "2.0 2ptth", "0123456789abcdef");
        tokio::time::advance(Duration::from_millis(10)).await;
        let head = exchange.waited();
        tokio::time::advance(Duration::from_millis(30)).await;
        let times = [head, Duration::from_millis(20)];
        let who = "visitor=2001:db8::7 http=2.0 id=0123456789abcdef\n";
        exchange.ended(&journal, StatusCode::OK, Ok(3), times);
        let expected =
            format!("GET \"/a\" 200 3 B 40.0 ms (head 10.0, body 20.0, visitor 10.0) {who}");
        assert_eq!(after(written.recv().unwrap()), expected);
        exchange.ended(
            &journal,
            StatusCode::OK,
            Err(&Broken { party: Party::Visitor, why: "the visitor left" }),
            times,
        );
        let expected = format!(
            "GET \"/a\" 200 broke off after 40.0 ms (head 10.0, body 20.0, visitor 10.0): the visitor left {who}"
        );
        assert_eq!(after(written.recv().unwrap()), expected);
        exchange.unanswered(&journal, Some((Failure::OriginRefused, "can't connect")));
        let expected =
            format!("GET \"/a\" 502 by 2ptth after 40.0 ms: E-ORIGIN-REFUSED, can't connect {who}");
        assert_eq!(after(written.recv().unwrap()), expected);
        exchange.unanswered(&journal, None);
        let expected = format!("GET \"/a\" taken back by the visitor after 40.0 ms {who}");
        assert_eq!(after(written.recv().unwrap()), expected);
        request("me id=0", "1.1\" x", "zzz").unanswered(&journal, None);
        let line = after(written.recv().unwrap());
        assert_eq!(line, "GET \"/a\" taken back by the visitor after 0.0 ms\n");
    }

    #[test]
    fn a_query_never_shows() {
        let (sender, written) = mpsc::channel();
        let journal = Journal::to(Pipe(sender));
        let request = Request::builder().uri("/a?token=secret").body(()).unwrap();
        Exchange::new(&request).ended(&journal, StatusCode::OK, Ok(3), [Duration::ZERO; 2]);
        let line = written.recv().unwrap();
        assert!(line.contains("GET \"/a") && line.contains(" 200 3 B "), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }
}
