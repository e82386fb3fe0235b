//! The exchanges that are kept, in bounded memory.
//!
//! Invariant: what hears an exchange waits for nothing here but a lock that is held for a copy.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, request};
use ptth_link::headers;
use ptth_link::lock::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

use super::capture::Capture;
use super::tape::Tape;
use crate::config::Limits;
use crate::watch::{Hears, Watch};

#[derive(Debug)]
pub(super) struct Store {
    pub(super) limits: Limits,
    /// The oldest first.
    tapes: Mutex<VecDeque<Arc<Tape>>>,
    held: AtomicUsize,
    next: AtomicU64,
    /// Each gets the summary of what changed. One that doesn't keep up is ended, and asks for the list again.
    pages: Mutex<Vec<mpsc::Sender<Bytes>>>,
    capture: Option<Capture>,
}

/// The store, as what hears all exchanges.
#[derive(Clone, Debug)]
pub(super) struct Listening(pub(super) Arc<Store>);

impl Watch for Listening {
    fn begin(&self, service: Option<&str>, head: &request::Parts) -> Arc<dyn Hears> {
        self.0.add(None, service, head)
    }
}

impl Store {
    pub(super) fn new(limits: Limits, capture: Option<Capture>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            tapes: Mutex::default(),
            held: AtomicUsize::new(0),
            next: AtomicU64::new(1),
            pages: Mutex::default(),
            capture,
        })
    }

    pub(super) fn add(
        self: &Arc<Self>,
        replay_of: Option<u64>,
        service: Option<&str>,
        head: &request::Parts,
    ) -> Arc<Tape> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let tape = Arc::new(Tape::new(self, (id, replay_of), service, head));
        let oldest = {
            let mut tapes = self.tapes.lock();
            tapes.push_back(tape.clone());
            (tapes.len() > self.limits.exchanges).then(|| tapes.pop_front()).flatten()
        };
        self.forget(oldest);
        self.tell(&tape);
        tape
    }

    /// Says that so many bytes more are kept, before they can be forgotten.
    pub(super) fn grew(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Forgets the oldest exchanges while too much is kept.
    pub(super) fn make_room(&self) {
        while self.held.load(Ordering::Relaxed) > self.limits.bytes {
            let Some(oldest) = self.tapes.lock().pop_front() else { return };
            self.forget(Some(oldest));
        }
    }

    fn forget(&self, tape: Option<Arc<Tape>>) {
        let freed = tape.map_or(0, |tape| tape.forget());
        self.held.fetch_sub(freed, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        let tapes = std::mem::take(&mut *self.tapes.lock());
        tapes.into_iter().for_each(|tape| self.forget(Some(tape)));
    }

    /// Has the pages that listen show this as it is now.
    pub(super) fn tell(&self, tape: &Tape) {
        let mut pages = self.pages.lock();
        if !pages.is_empty() {
            let event = Bytes::from(format!("data: {}\n\n", tape.summary()));
            pages.retain(|page| page.try_send(event.clone()).is_ok());
        }
    }

    /// What changes from now on, as server-sent events, after `first`.
    pub(super) fn listen(&self, first: &str) -> mpsc::Receiver<Bytes> {
        let (page, events) = mpsc::channel(EVENTS);
        let _ = page.try_send(Bytes::from(format!(": {first}\n\n")));
        self.pages.lock().push(page);
        events
    }

    /// Writes the request of an exchange that ended to a file, where that is wanted.
    pub(super) fn ended(&self, tape: &Tape) {
        if let (Some(capture), None) = (&self.capture, tape.replay_of) {
            capture.take(tape);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Tape>> {
        self.tapes.lock().iter().cloned().collect()
    }

    pub(super) fn find(&self, id: u64) -> Option<Arc<Tape>> {
        self.tapes.lock().iter().find(|tape| tape.id == id).cloned()
    }

    /// Names and values in order; those that hold secrets masked, unless `secrets` are asked for.
    pub(super) fn fields(&self, fields: &HeaderMap, secrets: bool) -> Vec<[Value; 2]> {
        let hides = |name: &HeaderName| {
            headers::is_secret(name.as_str()) || self.limits.redact.contains(name)
        };
        let shown = fields.iter().map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            let masked = !secrets && hides(name);
            [name.as_str().into(), if masked { MASK.into() } else { text.into() }]
        });
        shown.collect()
    }
}

/// What stands in the place of a secret.
pub(super) const MASK: &str = "(masked)";
/// Changes that may wait for a page.
const EVENTS: usize = 1024;

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
    use http::{Request, Response};
    use http_body::Frame;

    use super::*;
    use crate::journal::{Exchange, Journal};
    use crate::watch::{Event, Side};

    fn store(exchanges: usize, body: usize, bytes: usize) -> Arc<Store> {
        let redact = vec![HeaderName::from_static("x-private")];
        Store::new(Limits { exchanges, body, bytes, redact }, None)
    }

    fn exchange(store: &Arc<Store>, path: &str) -> Arc<dyn Hears> {
        let request = Request::get(format!("https://a.test{path}")).body(()).unwrap();
        Listening(store.clone()).begin(None, &request.into_parts().0)
    }

    fn paths(store: &Store) -> Vec<String> {
        store.all().iter().map(|tape| tape.uri.path().to_owned()).collect()
    }

    fn more(hears: &Arc<dyn Hears>, bytes: usize) {
        hears.hear(Event::Body(Side::Response, &Frame::data(vec![b'x'; bytes].into())));
    }

    #[test]
    fn the_oldest_exchanges_make_room() {
        let store = store(3, 1 << 20, 1 << 20);
        for n in 0..5 {
            exchange(&store, &format!("/{n}"));
        }
        assert_eq!(paths(&store), ["/2", "/3", "/4"]);
        assert!(store.find(1).is_none() && store.find(3).is_some());
    }

    #[test]
    fn bodies_are_kept_as_far_as_the_limits_allow() {
        let store = store(100, 1000, 10_000);
        let long = exchange(&store, "/long");
        more(&long, 900);
        more(&long, 900);
        let tape = store.find(1).unwrap();
        let kept = tape.detail(&store, false)["response"].clone();
        assert_eq!((kept["kept"].as_u64(), kept["bytes"].as_u64()), (Some(1000), Some(1800)));
        let mut alive = Vec::new();
        for n in 0..100 {
            let next = exchange(&store, &format!("/{n}"));
            more(&next, 500);
            assert!(store.held.load(Ordering::Relaxed) <= 10_000);
            alive.push(next);
        }
        let left = paths(&store).len();
        assert!((10..20).contains(&left), "{left}");
        // What made room keeps no more, however long it goes on.
        let before = store.held.load(Ordering::Relaxed);
        for hears in alive.iter().take(50).chain([&long]) {
            more(hears, 500);
        }
        assert_eq!(store.held.load(Ordering::Relaxed), before);
        store.clear();
        assert_eq!(store.held.load(Ordering::Relaxed), 0);
    }

    /// Many small parts are counted by what their notes need.
    #[test]
    fn a_stream_of_single_bytes_stays_within_the_limits() {
        let store = store(100, 1 << 20, 100_000);
        let (old, stream) = (exchange(&store, "/old"), exchange(&store, "/stream"));
        more(&old, 90_000);
        for _ in 0..100_000 {
            more(&stream, 1);
            assert!(store.held.load(Ordering::Relaxed) <= 100_000);
        }
        assert!(paths(&store).is_empty());
    }

    #[test]
    fn secrets_are_masked_unless_they_are_asked_for() {
        let store = store(1, 1, 1 << 20);
        let request = Request::get("https://a.test/");
        let known = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];
        let request = known.iter().fold(request, |it, name| it.header(name, "hidden"));
        let request = request.header("x-api-key", "hidden");
        let request = request.header("x-private", "hidden").header("x-open", "shown");
        let hears = Listening(store.clone()).begin(None, &request.body(()).unwrap().into_parts().0);
        let response = Response::builder().header(SET_COOKIE, "hidden").body(()).unwrap();
        hears.hear(Event::Head(&response.into_parts().0));
        let tape = store.find(1).unwrap();
        let masked = tape.detail(&store, false).to_string();
        assert!(!masked.contains("hidden") && masked.contains("shown"), "{masked}");
        assert_eq!(tape.detail(&store, true).to_string().matches("hidden").count(), 6);
    }

    /// The first end counts; and one that is dropped with its tunnel has an end, too.
    #[test]
    fn an_exchange_has_one_end() {
        let store = store(10, 1, 1 << 20);
        let request = Request::get("https://a.test/").body(()).unwrap();
        for told in [true, false] {
            let mut line = Exchange::new(&request);
            line.hears = Some(exchange(&store, "/"));
            if told {
                line.unanswered(&Journal::default(), None);
            }
            drop(line);
        }
        let why = [1, 2].map(|id| store.find(id).unwrap().summary()["why"].clone());
        assert_eq!(why, ["taken back by the visitor", "the tunnel is gone"]);
    }

    /// One that doesn't read is let go, and comes back for the list.
    #[tokio::test]
    async fn a_page_that_does_not_keep_up_is_let_go() {
        let store = store(10, 1, 1 << 20);
        let (mut slow, mut quick) = (store.listen("a"), store.listen("b"));
        assert_eq!(quick.recv().await.unwrap(), ": b\n\n");
        for n in 0..2 * EVENTS {
            exchange(&store, &format!("/{n}"));
            let event = String::from_utf8(quick.recv().await.unwrap().to_vec()).unwrap();
            assert!(event.contains(&format!("\"path\":\"/{n}\"")), "{event}");
        }
        let mut got = 0;
        while slow.recv().await.is_some() {
            got += 1;
        }
        assert_eq!(got, EVENTS);
    }
}
