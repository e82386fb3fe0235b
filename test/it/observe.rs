//! What is told of exchanges: one record for each, in the metrics and in the access log.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use http::HeaderValue;
use ptth_link::logging::{Format, Settings};
use ptth_server::config::Config;
use ptth_test::files::Folder;
use ptth_test::peer::*;
use ptth_test::{Ask, H2, Lab, Peer, soon};
use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, Lines};
use tokio::net::unix::pipe::{OpenOptions, Receiver};

/// A pipe that the access log is written to, so that its lines are events.
struct Log {
    folder: Folder,
    lines: Option<Lines<BufReader<Receiver>>>,
}

impl Log {
    fn new() -> Self {
        let folder = Folder::new();
        let made = Command::new("mkfifo").arg(folder.path("log")).status();
        assert!(made.expect("mkfifo").success());
        Self { folder, lines: None }
    }

    fn path(&self) -> PathBuf {
        self.folder.path("log")
    }

    fn settings(&self) -> impl FnOnce(&mut Config) {
        let path = self.path();
        move |config| config.access_log = Some(path)
    }

    /// The next line, without its time.
    async fn line(&mut self) -> String {
        let line = self.whole().await;
        line.split_once(' ').expect("a time").1.to_owned()
    }

    async fn whole(&mut self) -> String {
        let open = || OpenOptions::new().open_receiver(self.path()).expect("the pipe");
        if self.lines.is_none() {
            self.lines = Some(BufReader::new(open()).lines());
        }
        let lines = self.lines.as_mut().expect("open");
        soon("a line", lines.next_line()).await.expect("a pipe").expect("a writer")
    }
}

/// The samples of the metrics that begin with this.
fn samples(lab: &Lab, begins: &str) -> Vec<String> {
    let (_, page) = lab.metrics(None);
    page.lines().filter(|line| line.starts_with(begins)).map(str::to_owned).collect()
}

/// The exchanges that were counted so far.
fn counted(lab: &Lab) -> u64 {
    let samples = samples(lab, "ptth_exchanges_total{");
    let values = samples.iter().filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<u64>().expect("a count")).sum()
}

fn exchanges(class: &str, party: &str, count: u32) -> String {
    format!("ptth_exchanges_total{{route=\"other\",class=\"{class}\",party=\"{party}\"}} {count}")
}

#[track_caller]
fn says(line: &str, words: &[&str]) {
    for word in words {
        let there = format!(" {line} ").contains(&format!(" {word} "));
        assert!(there, "{word} is missing: {line}");
    }
}

async fn lab() -> (Lab, Log, Peer<DuplexStream>) {
    let log = Log::new();
    let mut lab = Lab::with(log.settings());
    let backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 100), (ENABLE_CONNECT_PROTOCOL, 1)]).await;
    (lab, log, backend)
}

/// Answers the next request.
async fn respond(backend: &mut Peer<DuplexStream>, status: &str, body: &[u8]) -> u32 {
    let stream = soon("a request", backend.request()).await.expect("a request").stream;
    let end = if body.is_empty() { END_STREAM } else { 0 };
    backend.send(headers(stream, END_HEADERS | end, &[(":status", status)])).await;
    if !body.is_empty() {
        backend.send(data(stream, END_STREAM, body)).await;
    }
    stream
}

#[tokio::test]
async fn an_exchange_that_completes_is_told_once_with_its_bytes() {
    let (mut lab, mut log, mut backend) = lab().await;
    let mut visitor = lab.h1();
    visitor.send("GET /a?secret=1 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    respond(&mut backend, "200", b"hello").await;
    assert_eq!(visitor.answer().await.status, 200);
    let line = log.line().await;
    says(
        &line,
        &[
            "method=\"GET\"",
            "host=\"a.example\"",
            "path=\"/a\"",
            "http=1.1",
            "status=200",
            "bytes_in=0",
            "bytes_out=5",
            "end=complete",
        ],
    );
    for name in ["id=", "visitor=198.18.", "queue_ms=", "head_ms=", " ms=", "tunnel=t"] {
        assert!(line.contains(name), "{name}: {line}");
    }
    assert!(!line.contains("secret") && !line.contains("code="), "{line}");
    assert_eq!(samples(&lab, "ptth_exchanges_total{"), [exchanges("2xx", "none", 1)]);
    let visitor = H2::over(lab.h2_socket()).await;
    let ask = Ask::post("/b", "upload");
    let (answer, _) = tokio::join!(visitor.ask(&ask), respond(&mut backend, "404", b""));
    assert_eq!(answer.status, 404);
    let line = log.line().await;
    says(&line, &["method=\"POST\"", "http=2", "status=404", "bytes_out=0", "end=complete"]);
    assert_eq!(counted(&lab), 2);
    let bytes = samples(&lab, "ptth_bytes_total{direction=\"out\"}");
    assert_eq!(bytes, ["ptth_bytes_total{direction=\"out\"} 5"]);
}

#[tokio::test]
async fn an_exchange_that_a_visitor_leaves_is_told_once() {
    let (mut lab, mut log, mut backend) = lab().await;
    for (path, answers) in [("/before", false), ("/during", true)] {
        let mut h1 = lab.h1();
        h1.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let mut h2 = lab.h2(&[]).await;
        h2.send(headers(1, END_HEADERS | END_STREAM, &get(path))).await;
        let mut streams = Vec::new();
        for _ in 0..2 {
            let stream = soon("a request", backend.request()).await.expect("one").stream;
            if answers {
                backend.send(headers(stream, END_HEADERS, &[(":status", "200")])).await;
                backend.send(data(stream, 0, b"begun")).await;
            }
            streams.push(stream);
        }
        if answers {
            h1.until(b"begun").await;
            h2.take(1, 5).await;
        }
        drop((h1, h2));
        for stream in streams {
            assert!(soon("its reset", backend.next_reset(stream)).await);
        }
        for _ in 0..2 {
            let line = log.line().await;
            let status = line.contains(" status=200 ");
            says(&line, &["end=left", &format!("path=\"{path}\"")]);
            assert_eq!(status, answers, "{line}");
        }
    }
    let expected = [exchanges("none", "visitor", 2), exchanges("2xx", "visitor", 2)];
    assert_eq!(samples(&lab, "ptth_exchanges_total{"), expected);
}

#[tokio::test]
async fn a_response_that_breaks_off_is_told_once_and_blames_the_backend() {
    let (mut lab, mut log, mut backend) = lab().await;
    let mut h1 = lab.h1();
    h1.send("GET /h1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let visitor = H2::over(lab.h2_socket()).await;
    let response = visitor.get("/h2").await;
    for _ in 0..2 {
        let stream = soon("a request", backend.request()).await.expect("one").stream;
        backend.send(headers(stream, END_HEADERS, &[(":status", "200")])).await;
        backend.send(data(stream, 0, b"begun")).await;
        if stream == 1 {
            h1.until(b"begun").await;
        }
    }
    let mut body = soon("the head", response).await.expect("a response").into_body();
    assert!(soon("its beginning", body.data()).await.is_some());
    for stream in [1, 3] {
        backend.send(reset(stream, 2)).await;
    }
    for _ in 0..2 {
        says(&log.line().await, &["status=200", "bytes_out=5", "end=broken"]);
    }
    assert_eq!(samples(&lab, "ptth_exchanges_total{"), [exchanges("2xx", "backend", 2)]);
    let broken = samples(&lab, "ptth_transfers_broken_total{party=\"backend\"}");
    assert_eq!(broken, ["ptth_transfers_broken_total{party=\"backend\"} 2"]);
}

/// Each time that a body begins to wait counts once, and names the receiver.
#[tokio::test]
async fn a_body_that_waits_for_a_window_counts_against_its_receiver() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 100), (INITIAL_WINDOW_SIZE, 4)]).await;
    let last = |line: String| line.rsplit(' ').next().map(str::to_owned);
    let stalls = |lab: &Lab| -> Option<Vec<_>> {
        samples(lab, "ptth_window_stalls_total{").into_iter().map(last).collect()
    };
    let mut visitor = lab.h2(&[(INITIAL_WINDOW_SIZE, 4)]).await;
    visitor.send(headers(1, END_HEADERS | END_STREAM, &get("/down"))).await;
    respond(&mut backend, "200", b"0123456789").await;
    assert_eq!(visitor.outcome(1).await, Outcome::Response(200, b"0123456789".to_vec()));
    assert_eq!(stalls(&lab).unwrap(), ["2", "0"]);
    let mut visitor = lab.h1();
    visitor.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789").await;
    let request = soon("a request", backend.request()).await.expect("one");
    let Outcome::Response(_, body) = backend.outcome(request.stream).await else { panic!("cut") };
    assert_eq!(body, b"0123456789");
    backend.send(headers(request.stream, END_HEADERS | END_STREAM, &[(":status", "204")])).await;
    assert_eq!(visitor.answer().await.status, 204);
    let counted = async {
        while stalls(&lab).unwrap() != ["2", "2"] {
            tokio::task::yield_now().await;
        }
    };
    soon("the count", counted).await;
}

#[tokio::test]
async fn a_page_of_the_gateways_own_is_told_once_with_its_code() {
    let log = &mut Log::new();
    let mut lab = Lab::with(log.settings());
    let mut visitor = lab.h1();
    visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 502);
    says(&log.line().await, &["status=502", "code=E-NO-BACKEND", "end=complete"]);
    visitor.send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 405);
    says(&log.line().await, &["status=405", "code=E-METHOD"]);
    let mut h2 = lab.h2(&[]).await;
    let fields = [&get("/")[..], &[("x", " a")]].concat();
    h2.send(headers(1, END_HEADERS | END_STREAM, &fields)).await;
    assert!(soon("its reset", h2.next_reset(1)).await);
    says(&log.line().await, &["code=E-REQUEST"]);
    let mut h1 = lab.h1();
    h1.send("GET / HTTP/1.1\r\nHost : a\r\n\r\n").await;
    assert_eq!(h1.answer().await.status, 400);
    says(&log.line().await, &["status=400", "code=E-REQUEST"]);
    let expected = [
        exchanges("none", "visitor", 1),
        exchanges("4xx", "visitor", 2),
        exchanges("5xx", "backend", 1),
    ];
    assert_eq!(samples(&lab, "ptth_exchanges_total{"), expected);
    let failures = samples(&lab, "ptth_failures_total{code=\"E-REQUEST\"}");
    assert_eq!(failures, ["ptth_failures_total{code=\"E-REQUEST\"} 2"]);
}

/// The client says by Proxy-Status which leg failed.
#[tokio::test]
async fn a_page_of_the_clients_blames_the_origin() {
    let (mut lab, mut log, mut backend) = lab().await;
    let mut visitor = lab.h1();
    visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let stream = soon("a request", backend.request()).await.expect("one").stream;
    let told = "2ptth; error=connection_refused; details=\"E-ORIGIN-REFUSED\"";
    let fields = [(":status", "502"), ("proxy-status", told)];
    backend.send(headers(stream, END_HEADERS | END_STREAM, &fields)).await;
    assert_eq!(visitor.answer().await.status, 502);
    says(&log.line().await, &["status=502", "code=E-ORIGIN-REFUSED"]);
    assert_eq!(samples(&lab, "ptth_exchanges_total{"), [exchanges("5xx", "origin", 1)]);
}

#[tokio::test]
async fn an_upgraded_exchange_is_told_once_when_it_ends() {
    let (mut lab, mut log, mut backend) = lab().await;
    let mut visitor = lab.h1();
    let upgrade = "Connection: upgrade\r\nUpgrade: chat\r\n\r\n";
    visitor.send(format!("GET /up HTTP/1.1\r\nHost: a\r\n{upgrade}")).await;
    let stream = soon("a request", backend.request()).await.expect("one").stream;
    backend.send(headers(stream, END_HEADERS, &[(":status", "200")])).await;
    assert_eq!(visitor.head().await.0, 101);
    visitor.send("ping").await;
    assert_eq!(counted(&lab), 0, "it goes on");
    backend.send(data(stream, END_STREAM, b"pong!")).await;
    visitor.until(b"pong!").await;
    drop(visitor);
    let line = log.line().await;
    says(&line, &["status=101", "bytes_in=4", "bytes_out=5"]);
    assert_eq!(counted(&lab), 1);
}

/// Text of a peer stays one value of one line.
#[tokio::test]
async fn hostile_hosts_and_paths_make_no_lines_and_no_values() {
    let (mut lab, mut log, mut backend) = lab().await;
    let mut visitor = lab.h1();
    let path = format!("/\"x%0a\\end=left{}", "y".repeat(7 * 1024));
    visitor.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    respond(&mut backend, "200", b"").await;
    assert_eq!(visitor.answer().await.status, 200);
    let line = log.line().await;
    says(&line, &["status=200", "end=complete"]);
    assert!(line.contains(" path=\"/\\\"x%0a\\\\end=left"), "{line}");
    assert!(line.len() < 1500, "{}", line.len());
    for host in ["a\" end=x", "a\u{7f}", "a\tb"] {
        let mut visitor = lab.h1();
        visitor.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(visitor.answer().await.status, 400);
        let line = log.line().await;
        says(&line, &["code=E-REQUEST"]);
        assert!(!line.contains(" end=x"), "{line}");
    }
}

#[tokio::test]
async fn a_line_is_an_object_where_json_is_wanted() {
    let log = &mut Log::new();
    let (settings, json) =
        (log.settings(), Settings { format: Format::Json, ..Settings::default() });
    let mut lab = Lab::with(|config| {
        settings(config);
        config.log = json;
    });
    let mut visitor = lab.h1();
    visitor.send("GET /\"a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 502);
    let line = log.whole().await;
    assert!(line.starts_with("{\"time\":\"2") && line.ends_with('}'), "{line}");
    assert!(line.contains("\"path\":\"/\\\"a\",\"http\":\"1.1\",\"status\":502,"), "{line}");
    assert!(line.contains("\"code\":\"E-NO-BACKEND\""), "{line}");
}

/// Two pipes' worth of lines that are never read.
#[tokio::test]
async fn an_access_log_that_takes_nothing_delays_no_exchange() {
    let (mut lab, _log, mut backend) = lab().await;
    lab.spawn(async move {
        while let Some(request) = backend.request().await {
            let fields = [(":status", "204")];
            backend.send(headers(request.stream, END_HEADERS | END_STREAM, &fields)).await;
        }
    });
    let mut visitor = lab.h1();
    for _ in 0..4000 {
        visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(visitor.answer().await.status, 204);
    }
    assert_eq!(counted(&lab), 4000);
}

/// Hosts, paths and methods are the visitors' to choose, and labels aren't.
#[tokio::test]
async fn no_label_has_a_value_of_a_visitors() {
    let mut lab = Lab::default();
    let before = samples(&lab, "ptth_").len();
    let mut visitor = lab.h1();
    for n in 0..1000 {
        visitor.send(format!("M{n} /{n} HTTP/1.1\r\nHost: h{n}.example\r\n\r\n")).await;
        assert_eq!(visitor.answer().await.status, 502);
    }
    let after = samples(&lab, "ptth_");
    assert_eq!(after.len(), before + 1, "{after:?}");
    assert_eq!(samples(&lab, "ptth_exchanges_total{"), [exchanges("5xx", "backend", 1000)]);
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let lab = Lab::default();
    let (kind, page) = lab.metrics(None);
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert!(page.contains("# TYPE ptth_tunnels gauge\nptth_tunnels 0\n"), "{page}");
    assert!(page.contains("ptth_queue_seconds_bucket{le=\"+Inf\"} 0\n") && !page.contains("# EOF"));
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";
    let (kind, page) = lab.metrics(Some(&HeaderValue::from_static(accept)));
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(page.ends_with("# EOF\n"), "{page}");
    assert!(page.contains("# TYPE ptth_failures counter\n"), "{page}");
}

/// And the page in docs/guide.md tells of each metric.
#[tokio::test]
async fn the_board_shows_metrics_that_are_exported() {
    let (_, page) = Lab::default().metrics(None);
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let exported: BTreeSet<_> = types.map(str::to_owned).collect();
    let named = |text: &str| -> BTreeSet<_> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        let words = words.filter(|word| word.starts_with("ptth_") || word.starts_with("process_"));
        let words = words.filter(|word| *word != "ptth_client_");
        words.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
    };
    assert_eq!(named(&crate::documents::read("packaging/grafana.json")), exported);
    let guide = crate::documents::read("docs/guide.md");
    let section = guide.split("\n## Observe it\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    assert_eq!(named(section), exported);
}
