//! A request runs once or, if nobody touched it, somewhere else.

use std::time::Duration;

use ptth_test::peer::*;
use ptth_test::{H1, Lab, Peer, soon};
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// A backend by hand that reads all the while. Dropping it closes its tunnel.
struct Far {
    came: UnboundedReceiver<Frame>,
    say: UnboundedSender<Vec<u8>>,
}

impl Far {
    async fn up(lab: &mut Lab, streams: u32) -> Self {
        let mut peer: Peer<DuplexStream> = lab.backend(&[(MAX_CONCURRENT_STREAMS, streams)]).await;
        let (tell, came) = unbounded_channel();
        let (say, mut said) = unbounded_channel::<Vec<u8>>();
        lab.spawn(async move {
            loop {
                tokio::select! {
                    frame = peer.next() => match frame {
                        Some(frame) => _ = tell.send(frame),
                        None => return,
                    },
                    bytes = said.recv() => match bytes {
                        Some(bytes) => _ = peer.send(bytes).await,
                        None => return,
                    },
                }
            }
        });
        Self { came, say }
    }

    fn say(&self, bytes: Vec<u8>) {
        self.say.send(bytes).expect("the tunnel lives");
    }

    /// The next frame of that type.
    async fn next(&mut self, kind: u8) -> Frame {
        soon("a frame", async {
            loop {
                let frame = self.came.recv().await.expect("the tunnel lives");
                if frame.kind == kind {
                    return frame;
                }
            }
        })
        .await
    }

    /// The next request: its path and its stream.
    async fn request(&mut self) -> (String, u32) {
        let frame = self.next(HEADERS).await;
        (frame.field(":path"), frame.stream)
    }

    fn answer(&self, stream: u32) {
        let head = headers(stream, 0, &[(":status", "200")]);
        self.say([head, data(stream, END_STREAM, b"ok")].concat());
    }

    /// What came by now, once nothing moves any more.
    async fn paths(&mut self) -> Vec<String> {
        quiet().await;
        let mut paths = Vec::new();
        while let Ok(frame) = self.came.try_recv() {
            if frame.kind == HEADERS {
                paths.push(frame.field(":path"));
            }
        }
        paths
    }
}

/// With the clock paused this returns when every task of the one runtime waits.
async fn quiet() {
    sleep(Duration::from_millis(1)).await;
}

fn ask(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: example.test\r\n\r\n")
}

/// A visitor of HTTP/1.1 who asked for `path`.
async fn h1(lab: &mut Lab, path: &str) -> H1<DuplexStream> {
    let mut visitor = lab.h1();
    visitor.send(ask(path)).await;
    visitor
}

/// Two backends of which the first is busy, so that the next request goes to the other one.
async fn busy_and_idle(lab: &mut Lab) -> (Far, Far, H1<DuplexStream>) {
    let mut busy = Far::up(lab, 1000).await;
    let visitor = h1(lab, "/busy").await;
    busy.request().await;
    let idle = Far::up(lab, 1000).await;
    (busy, idle, visitor)
}

/// On another tunnel, though the one that refuses is the least busy one.
#[tokio::test(start_paused = true)]
async fn a_refused_request_is_tried_on_another_tunnel() {
    let mut lab = Lab::default();
    let (mut busy, mut idle, _first) = busy_and_idle(&mut lab).await;
    for n in 0..10 {
        let path = format!("/{n}");
        let mut visitor = h1(&mut lab, &path).await;
        let (asked, stream) = idle.request().await;
        assert_eq!(asked, path);
        idle.say(reset(stream, REFUSED_STREAM));
        let (asked, stream) = busy.request().await;
        assert_eq!(asked, path);
        busy.answer(stream);
        assert_eq!(visitor.answer().await.text(), "ok");
        assert!(idle.paths().await.is_empty(), "tried once and no more");
    }
    assert!(busy.paths().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_above_goaways_last_stream_is_tried_on_another_tunnel() {
    let mut lab = Lab::default();
    let (mut busy, mut idle, _first) = busy_and_idle(&mut lab).await;
    let mut below = h1(&mut lab, "/below").await;
    let (_, processed) = idle.request().await;
    // Both have one under way now; the next two go one to each.
    let visitors = [h1(&mut lab, "/above").await, h1(&mut lab, "/above").await];
    let (_, stream) = busy.request().await;
    busy.answer(stream);
    idle.request().await;
    idle.say(goaway(processed, 0));
    let (asked, stream) = busy.request().await;
    assert_eq!(asked, "/above");
    busy.answer(stream);
    for mut visitor in visitors {
        assert_eq!(visitor.answer().await.text(), "ok");
    }
    // What was below goes on where it is.
    idle.answer(processed);
    assert_eq!(below.answer().await.text(), "ok");
    assert!(busy.paths().await.is_empty());
}

/// An upload of which the visitor has sent the head.
fn post(path: &str) -> Vec<u8> {
    headers(1, 0, &request("POST", path))
}

/// An untouched body goes along.
#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_took_is_sent_to_the_other_one() {
    for refusal in [reset(1, REFUSED_STREAM), goaway(0, 0)] {
        let mut lab = Lab::default();
        let (mut busy, mut idle, _first) = busy_and_idle(&mut lab).await;
        let mut visitor = lab.h2(&[]).await;
        visitor.send(post("/upload")).await;
        assert_eq!(idle.request().await.0, "/upload");
        idle.say(refusal);
        let (asked, stream) = busy.request().await;
        assert_eq!(asked, "/upload");
        visitor.send(data(1, END_STREAM, b"body")).await;
        let body = busy.next(DATA).await;
        assert_eq!((body.stream, body.payload.as_slice()), (stream, &b"body"[..]));
        busy.answer(stream);
        assert_eq!(visitor.outcome(1).await, Outcome::Response(200, b"ok".to_vec()));
    }
}

/// And one of which a byte was taken doesn't; nor does anything that may have been processed.
#[tokio::test(start_paused = true)]
async fn what_may_have_been_processed_is_never_tried_again() {
    let half = || [post("/half"), data(1, 0, b"half")].concat();
    let bare = || headers(1, END_STREAM, &request("GET", "/bare"));
    for (name, ask, refusal) in [
        ("a byte was taken", half(), Some(reset(1, REFUSED_STREAM))),
        ("a byte was taken, GOAWAY", half(), Some(goaway(0, 0))),
        ("CANCEL", bare(), Some(reset(1, CANCEL))),
        ("INTERNAL_ERROR", bare(), Some(reset(1, 2))),
        ("NO_ERROR", bare(), Some(reset(1, 0))),
        ("GOAWAY with an error", bare(), Some(goaway(1, 2))),
        ("the tunnel broke", bare(), None),
    ] {
        let mut lab = Lab::default();
        let (mut busy, mut idle, _first) = busy_and_idle(&mut lab).await;
        let mut visitor = lab.h2(&[]).await;
        let uploads = ask.len() > 60 && name.starts_with("a byte");
        visitor.send(ask).await;
        idle.request().await;
        if uploads {
            idle.next(DATA).await;
        }
        if let Some(refusal) = refusal {
            idle.say(refusal);
            quiet().await;
        }
        drop(idle);
        let outcome = visitor.outcome(1).await;
        assert!(matches!(outcome, Outcome::Response(502, _)), "{name}: {outcome:?}");
        assert_eq!(busy.paths().await, [] as [&str; 0], "{name}");
    }
}

/// A backend that drains takes the answer to a PING, sent right behind its first GOAWAY, to mean that no stream is
/// on its way any more (RFC 9113 §6.8), and refuses those that come after it. So what was opened before the GOAWAY
/// was read must leave before that answer, however the two coincide: with a body it can't be tried again.
#[tokio::test(start_paused = true)]
async fn what_was_opened_before_a_goaway_leaves_before_the_answer_to_its_ping() {
    let mut crossed = 0;
    for turns in 0..12 {
        let mut lab = Lab::default();
        let mut backend: Peer<DuplexStream> = lab.backend(&[]).await;
        let mut visitor = lab.h2(&[]).await;
        quiet().await;
        // A task of its own, so that it takes turns with the gateway's.
        let mut both = tokio::task::JoinSet::new();
        both.spawn(async move {
            visitor.send([post("/upload"), data(1, END_STREAM, b"body")].concat()).await;
            for _ in 0..turns {
                one_turn().await;
            }
            let drain = [goaway(i32::MAX as u32, 0), frame(PING, 0, 0, b"drained?")].concat();
            backend.send(drain).await;
            (backend, visitor)
        });
        let (mut backend, _visitor) = both.join_next().await.unwrap().unwrap();
        let mut opened = false;
        while let Some(frame) = soon("the answer", backend.any()).await {
            opened |= frame.kind == HEADERS;
            if frame.kind == PING && frame.flags & ACK != 0 && frame.payload == b"drained?" {
                break;
            }
        }
        crossed += u32::from(opened);
        let late = async {
            while let Some(frame) = backend.any().await {
                assert_ne!(frame.kind, HEADERS, "after {turns} turns");
            }
        };
        let _ = timeout(Duration::from_secs(1), late).await;
    }
    assert!(crossed > 0);
}

/// Lets each task that is ready run once; `yield_now` waits until none is.
async fn one_turn() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// After GOAWAY and a close, too, what was below the last stream is lost for good.
#[tokio::test(start_paused = true)]
async fn a_drain_that_breaks_off_loses_what_ran() {
    let mut lab = Lab::default();
    let (mut busy, mut idle, _first) = busy_and_idle(&mut lab).await;
    let mut visitor = h1(&mut lab, "/runs").await;
    let (_, stream) = idle.request().await;
    idle.say(goaway(stream, 0));
    quiet().await;
    drop(idle);
    assert_eq!(visitor.answer().await.status, 502);
    assert!(busy.paths().await.is_empty());
}

/// While it waits for a stream, its visitor leaves: it is never sent.
#[tokio::test(start_paused = true)]
async fn a_request_that_was_cancelled_in_the_queue_is_never_run() {
    let mut lab = Lab::default();
    let mut backend = Far::up(&mut lab, 1).await;
    let mut first = h1(&mut lab, "/first").await;
    let (_, stream) = backend.request().await;
    let gone_h1 = h1(&mut lab, "/gone/h1").await;
    let mut resets = lab.h2(&[]).await;
    resets.send(headers(1, END_STREAM, &get("/gone/h2/reset"))).await;
    resets.send(headers(3, 0, &request("POST", "/gone/h2/upload"))).await;
    let mut leaves = lab.h2(&[]).await;
    leaves.send(headers(1, END_STREAM, &get("/gone/h2"))).await;
    quiet().await;
    let mut last = h1(&mut lab, "/last").await;
    quiet().await;
    drop((gone_h1, leaves));
    resets.send([reset(1, CANCEL), reset(3, CANCEL)].concat()).await;
    quiet().await;
    backend.answer(stream);
    assert_eq!(first.answer().await.text(), "ok");
    let (asked, stream) = backend.request().await;
    assert_eq!(asked, "/last");
    backend.answer(stream);
    assert_eq!(last.answer().await.text(), "ok");
    sleep(Duration::from_secs(10)).await;
    assert!(backend.paths().await.is_empty());
}

/// Five seconds in the queue, then 503, and it is never sent.
#[tokio::test(start_paused = true)]
async fn a_request_that_waited_too_long_is_never_run() {
    let mut lab = Lab::default();
    let mut backend = Far::up(&mut lab, 1).await;
    let mut first = h1(&mut lab, "/first").await;
    let (_, stream) = backend.request().await;
    let begun = Instant::now();
    let answer = h1(&mut lab, "/late").await.answer().await;
    assert_eq!((answer.status, answer.field("retry-after").as_str()), (503, "1"));
    assert_eq!(begun.elapsed().as_secs(), 5);
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, END_STREAM, &get("/late"))).await;
    assert!(matches!(visitor.outcome(1).await, Outcome::Response(503, _)));
    backend.answer(stream);
    assert_eq!(first.answer().await.text(), "ok");
    assert!(backend.paths().await.is_empty());
}

/// The backend is silent until the deadline: 504, the stream is reset, and nobody else is asked.
#[tokio::test(start_paused = true)]
async fn a_request_that_timed_out_is_taken_back() {
    let mut lab = Lab::default();
    let (mut busy, mut idle, _first) = busy_and_idle(&mut lab).await;
    let begun = Instant::now();
    let mut visitor = h1(&mut lab, "/silent").await;
    let (_, stream) = idle.request().await;
    // Beyond the harness's own deadline.
    assert_eq!(visitor.head().await.0, 504);
    assert_eq!(begun.elapsed().as_secs(), 120);
    let taken_back = idle.next(RST_STREAM).await;
    assert_eq!((taken_back.stream, taken_back.code()), (stream, CANCEL));
    assert!(idle.paths().await.is_empty());
    assert!(busy.paths().await.is_empty());
}

/// The visitor leaves: the backend is told at once, whatever the visitor speaks.
#[tokio::test(start_paused = true)]
async fn a_cancelled_request_is_taken_back() {
    let mut lab = Lab::default();
    let mut backend = Far::up(&mut lab, 1000).await;
    let begun = Instant::now();
    let visitor = h1(&mut lab, "/h1").await;
    let (_, stream) = backend.request().await;
    drop(visitor);
    assert_eq!(backend.next(RST_STREAM).await.stream, stream);
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, END_STREAM, &get("/h2"))).await;
    let (_, stream) = backend.request().await;
    visitor.send(reset(1, CANCEL)).await;
    assert_eq!(backend.next(RST_STREAM).await.stream, stream);
    visitor.send(headers(3, END_STREAM, &get("/h2"))).await;
    let (_, stream) = backend.request().await;
    drop(visitor);
    assert_eq!(backend.next(RST_STREAM).await.stream, stream);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    assert!(backend.paths().await.is_empty());
}

/// A backend that takes a hundred at a time is sent a hundred at a time, and all of a thousand.
#[tokio::test(start_paused = true)]
async fn a_thousand_requests_queue_for_a_hundred_streams() {
    let mut lab = Lab::default();
    let mut backend = Far::up(&mut lab, 100).await;
    let mut visitors = Vec::new();
    for n in 0..1001 {
        visitors.push(h1(&mut lab, &format!("/{n}")).await);
    }
    let serve = async {
        for _ in 0..1001 {
            let (_, stream) = backend.request().await;
            // A stream's turn ends before another one's begins: never more than a hundred.
            assert!(backend.came.len() < 100, "{}", backend.came.len());
            backend.answer(stream);
        }
    };
    let visit = async {
        for visitor in &mut visitors {
            assert_eq!(visitor.answer().await.status, 200);
        }
    };
    tokio::join!(serve, visit);
    assert!(backend.paths().await.is_empty(), "none twice");
}
