//! How large a window the streams of one connection get: one budget for the process, shared out.
//!
//! HTTP/2 has no window for a single stream that may be lowered later, but SETTINGS_INITIAL_WINDOW_SIZE
//! moves the windows of all streams of a connection, the open ones too (RFC 9113 §6.9.2). So the window
//! follows what is left: wide while few streams are open and their readers keep up, which a long
//! fat link needs; narrow when many are open or readers stall, which memory needs. And it is no wider than
//! the link is long: what is more only waits in the receiver's socket, and there the heads of other
//! streams wait behind it. A peer that isn't ours is never told of a lower one (`Growing`).

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Budget;
use crate::deadline::Deadline;

/// The window of one connection's streams, as last announced.
#[derive(Debug)]
pub struct Window {
    budget: Arc<Budget>,
    announced: u32,
    /// As wide as the link is long.
    reach: u32,
    /// It begins narrow, and nothing was sent through it yet.
    fresh: bool,
    changed: Instant,
    received: u64,
    /// It is never lowered.
    growing: Option<Growing>,
    /// It was lowered, and credit is to be renewed so many times more.
    renewals: &'static [Duration],
    renewal: Deadline,
    connection: Option<Connection>,
}

/// The window of the whole connection.
#[derive(Debug)]
struct Connection {
    first: u32,
    full: u32,
    target: u32,
}

impl Window {
    /// Starts at `announced`, which the first SETTINGS frame of the connection carries. The link's length
    /// doesn't count until it is known ([`Window::reach`]).
    pub fn new(budget: Arc<Budget>, announced: u32) -> Self {
        budget.lowers();
        Self::of(budget, announced)
    }

    fn of(budget: Arc<Budget>, announced: u32) -> Self {
        Self {
            budget,
            announced,
            reach: WIDEST,
            fresh: false,
            changed: Instant::now(),
            received: 0,
            growing: None,
            renewals: &[],
            renewal: Deadline::default(),
            connection: None,
        }
    }

    /// Starts with `first`, and only grows: for a peer that may acknowledge a lower window before it sends what the
    /// one before allowed.
    pub fn growing(budget: Arc<Budget>, first: u32, widest: u32, windows: u32) -> Self {
        let growing = Some(Growing::new(budget.clone(), (first, widest), windows));
        Self { growing, ..Self::of(budget, first) }
    }

    /// That of a tunnel: to an end that is `ours` as wide as the link is long, to another one growing.
    pub fn tunnel(budget: Arc<Budget>, ours: bool) -> Self {
        if ours {
            return Self { reach: FIRST, fresh: true, ..Self::new(budget, FIRST) };
        }
        Self::growing(budget, FOREIGN, FOREIGN_WIDEST, FOREIGN_WINDOWS)
    }

    /// As it was announced last.
    pub fn announced(&self) -> u32 {
        self.announced
    }

    /// Has the connection's window, which begins with `first`, follow the streams': so many may be as full as theirs
    /// allows.
    #[must_use]
    pub fn with_connection(self, first: u32, full: u32) -> Self {
        Self { connection: Some(Connection { first, full, target: first }), ..self }
    }

    /// The connection's window to aim at from now on, where it is another one. Where much is held in the process, it
    /// is what it was at first, by credit that is withheld.
    pub fn target(&mut self) -> Option<u32> {
        let connection = self.connection.as_mut()?;
        let target = match self.budget.whole().is_pressed() {
            true => connection.first,
            false => self.announced.saturating_mul(connection.full).max(connection.first),
        };
        (std::mem::replace(&mut connection.target, target) != target).then_some(target)
    }

    /// Says how long the link is: what it takes to there and back.
    pub fn reach(&mut self, round_trip: Duration) {
        if let Some(growing) = &mut self.growing {
            return growing.reach(round_trip);
        }
        let bytes = round_trip.as_secs_f64() * RATE * LATE_CREDIT;
        // Saturates, and the clamp does the rest.
        self.reach = (bytes as u32).clamp(FIRST, WIDEST);
    }

    /// The window to announce now that `streams` are open and so many bytes were `received` on the
    /// connection in all, where it differs enough from the last one.
    ///
    /// Lowered at once, since memory can't wait. Raised where the peer used up the window since the last
    /// change, and once a second at most, so that a connection whose streams come and go doesn't answer
    /// each of them with a SETTINGS frame; and at once where it became known how long the link is.
    pub fn adjust(&mut self, streams: usize, received: u64) -> Option<u32> {
        if let Some(growing) = &mut self.growing {
            return growing.adjust(self.announced, received);
        }
        let wanted = self.budget.share(streams, self.reach);
        let lower = wanted <= self.announced / 4 * 3;
        let used = received.saturating_sub(self.received) >= u64::from(self.announced)
            && self.changed.elapsed() >= RAISE_INTERVAL;
        let wider = wanted >= self.announced / 4 * 5
            // Or it would stay a little narrower for ever.
            || (wanted == self.reach && wanted > self.announced);
        let raise = wider && (used || self.fresh);
        (lower || raise).then_some(wanted)
    }

    /// To be called when the peer was sent the window that [`Window::adjust`] returned.
    pub fn announce(&mut self, window: u32, received: u64) {
        if window < self.announced {
            self.renewals = RENEWALS;
        }
        self.announced = window;
        self.fresh = false;
        self.changed = Instant::now();
        self.received = received;
    }
}

impl Window {
    /// To be called at each poll of the connection. h2 keeps back up to a third of a window before it tells the sender
    /// of it, and looks at that when something is read only. A window that is lowered by more leaves the sender
    /// nothing, while everything is read, and the stream would stand still (RFC 9113 §6.9.2: the sender waits for
    /// WINDOW_UPDATE). When the peer acknowledged the lower one is h2's secret.
    pub fn poll_renewals(&mut self, cx: &mut Context<'_>) {
        while let [after, rest @ ..] = self.renewals
            && self.renewal.poll_at(cx, self.changed + *after).is_ready()
        {
            self.renewals = rest;
            self.budget.renew();
        }
    }
}

/// After a lower window was announced: within the round trips that there are.
const RENEWALS: &[Duration] = &[
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
];
/// The rate that one stream is to reach, in bytes a second: 1 Gbit/s.
const RATE: f64 = 125e6;
/// Of what is under way as much again is credited late: h2 tells the sender of a third of the window at a
/// time. With 1.3 times what is under way a download reached 69 to 87 % of plain TCP's rate.
pub(crate) const LATE_CREDIT: f64 = 2.6;
/// That at 100 ms.
pub(crate) const WIDEST: u32 = 32 * 1024 * 1024;
/// What a tunnel begins with, and what it keeps on a short link.
pub(crate) const FIRST: u32 = 256 * 1024;
/// The same towards one that isn't ours, and is never told of a lower one.
const FOREIGN: u32 = 64 * 1024;
/// As wide as it grows: at 100 ms that is 4 to 10 MB/s.
const FOREIGN_WIDEST: u32 = 1024 * 1024;
/// As many stalled streams are paid for when the window grows.
const FOREIGN_WINDOWS: u32 = 16;
const RAISE_INTERVAL: Duration = Duration::from_secs(1);

/// A window that only grows: how much a connection was granted beyond its first one, and the rate at which it uses it.
///
/// No lower window is ever announced. A browser acknowledges one at once, though DATA that the one before allowed still
/// waits in its queue; to enforce the lower one would break off its uploads (RFC 9113 §6.9.3). So memory is bounded by
/// what was granted: the connection's window, which is taken out of the process's budget before it is announced, and
/// given back when the connection is gone.
#[derive(Debug)]
pub(crate) struct Growing {
    budget: Arc<Budget>,
    first: u32,
    widest: u32,
    /// How many of its streams' windows the grant covers.
    windows: u32,
    granted: usize,
    round_trip: Option<Duration>,
    since: Instant,
    received: u64,
}

impl Growing {
    pub(crate) fn new(budget: Arc<Budget>, (first, widest): (u32, u32), windows: u32) -> Self {
        let since = Instant::now();
        Self { budget, first, widest, windows, granted: 0, round_trip: None, since, received: 0 }
    }

    pub(crate) fn reach(&mut self, round_trip: Duration) {
        self.round_trip = Some(round_trip);
    }

    /// The window to announce after `announced`. A reader that is slow makes the rate low, and so the window.
    pub(crate) fn adjust(&mut self, announced: u32, received: u64) -> Option<u32> {
        let came = received.saturating_sub(self.received);
        if came < u64::from(announced) {
            // It isn't what limits the peer.
            return None;
        }
        let round_trip = self.round_trip?.min(LONGEST);
        let took = self.since.elapsed();
        if took < INTERVAL.max(round_trip) {
            return None;
        }
        (self.since, self.received) = (Instant::now(), received);
        let rate = came as f64 / took.as_secs_f64();
        let needed = rate * (round_trip.as_secs_f64() * LATE_CREDIT + TURN.as_secs_f64());
        // Saturates.
        let needed = (needed as u32).min(self.widest);
        let wider = |window: u32| window >= announced / 4 * 5;
        if !wider(needed) {
            return None;
        }
        let windows = self.windows as usize;
        let wanted = needed.saturating_sub(self.first) as usize * windows;
        // What was granted for a window that couldn't be announced yet is still there.
        let more = wanted.saturating_sub(self.granted);
        self.granted += self.budget.grant(self.granted, more);
        let granted = self.first + u32::try_from(self.granted / windows).unwrap_or(0);
        Some(granted.min(needed)).filter(|window| wider(*window))
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.budget.revoke(self.granted);
    }
}

/// For how long the rate is measured, at least: long enough that what waited in the kernel is no rate.
const INTERVAL: Duration = Duration::from_millis(50);
/// What a turn takes beside the way: on a short link a window has to last from one wake-up to the next.
const TURN: Duration = Duration::from_millis(4);
/// A peer may say that it is as far as it likes.
const LONGEST: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::NARROWEST;

    #[tokio::test(start_paused = true)]
    async fn the_window_follows_what_is_left() {
        let budget = Budget::new(64 << 20);
        let mut window = Window::new(budget.clone(), WIDEST);
        assert_eq!(window.adjust(1, 0), None);
        assert_eq!(window.adjust(64, 0), Some(1 << 20), "lowered at once");
        window.announce(1 << 20, 0);
        assert_eq!(window.adjust(1, 1 << 20), None, "not raised within the second");
        tokio::time::advance(RAISE_INTERVAL).await;
        assert_eq!(window.adjust(1, 1000), None, "not raised while it isn't the limit");
        assert_eq!(window.adjust(1, 1 << 20), Some(WIDEST));
        budget.take(64 << 20);
        assert_eq!(window.adjust(1, 1 << 20), Some(NARROWEST), "nothing is left");
        budget.give_back(32 << 20);
        assert_eq!(window.adjust(1, 1 << 20), Some(16 << 20));
        budget.give_back(32 << 20);
        window.announce(WIDEST, 1 << 20);
        budget.take(1 << 20);
        assert_eq!(window.adjust(1, 1 << 20), None, "a little that is held is no reason");
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_is_as_wide_as_the_link_is_long() {
        let budget = Budget::new(64 << 20);
        let mut window = Window::tunnel(budget.clone(), true);
        assert_eq!(window.adjust(1, 0), None);
        window.reach(Duration::from_millis(50));
        let wide = window.adjust(1, 0).unwrap();
        assert!((16_000_000..17_000_000).contains(&wide), "{wide}: at once");
        window.announce(wide, 0);
        window.reach(Duration::from_micros(100));
        assert_eq!(window.adjust(1, 0), Some(FIRST), "it was nearer than it seemed");
        window.announce(FIRST, 0);
        window.reach(Duration::from_secs(1000));
        assert_eq!(window.adjust(1, 0), None, "raised as any other from then on");
        tokio::time::advance(RAISE_INTERVAL).await;
        assert_eq!(window.adjust(1, u64::from(FIRST)), Some(WIDEST));
    }

    #[tokio::test(start_paused = true)]
    async fn in_the_end_the_window_is_all_that_the_link_needs() {
        let mut window = Window::tunnel(Budget::new(64 << 20), true);
        window.announce(FIRST / 8 * 7, 0);
        tokio::time::advance(RAISE_INTERVAL).await;
        assert_eq!(window.adjust(1, 1000), None, "not while it isn't the limit");
        assert_eq!(window.adjust(18, u64::from(FIRST)), None, "a little wider isn't worth a frame");
        assert_eq!(window.adjust(1, u64::from(FIRST)), Some(FIRST));
        window.announce(FIRST, 0);
        tokio::time::advance(RAISE_INTERVAL).await;
        assert_eq!(window.adjust(1, u64::from(FIRST)), None);
    }

    /// All that came is read, h2 keeps the credit for it back, and the window is lowered by more than the sender has:
    /// the sender waits for a WINDOW_UPDATE, and nothing is left to be read that could bring one about.
    #[tokio::test(start_paused = true)]
    async fn a_stream_goes_on_after_its_window_was_lowered() {
        use std::future::poll_fn;
        use std::pin::Pin;
        use std::task::Poll;

        use bytes::Bytes;
        use http_body::Body as _;
        use tokio::time::{sleep, timeout};

        let (near, far) = tokio::io::duplex(1 << 16);
        let sends = async {
            let (mut sender, connection) = h2::client::handshake(near).await.unwrap();
            let mut tasks = tokio::task::JoinSet::new();
            tasks.spawn(connection);
            let request = http::Request::post("http://a/").body(()).unwrap();
            let (_response, mut stream) = sender.send_request(request, false).unwrap();
            for bytes in [9_000, 500] {
                // Until nothing moves: the window is lowered by then.
                sleep(Duration::from_millis(1)).await;
                stream.reserve_capacity(bytes);
                while stream.capacity() < bytes {
                    poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                }
                stream.send_data(Bytes::from(vec![7; bytes]), false).unwrap();
            }
            std::future::pending::<()>().await;
        };
        let reads = async {
            let budget = Budget::new(1 << 20);
            let mut builder = h2::server::Builder::new();
            let mut connection =
                builder.initial_window_size(30_000).handshake::<_, Bytes>(far).await.unwrap();
            let mut window = Window::new(budget.clone(), 30_000);
            let (request, _respond) = connection.accept().await.unwrap().unwrap();
            let (mut inflow, mut body) = crate::body::split(request.into_body(), &budget);
            let mut read = 0;
            poll_fn(|cx| {
                window.poll_renewals(cx);
                let _ = connection.poll_accept(cx);
                let _ = Pin::new(&mut inflow).poll(cx);
                while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(cx) {
                    read += frame.into_data().unwrap().len();
                }
                if read == 9_000 && window.announced > 1_000 {
                    connection.set_initial_window_size(1_000).unwrap();
                    window.announce(1_000, 0);
                    cx.waker().wake_by_ref();
                }
                if read == 9_500 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        };
        let both = async {
            tokio::select! {
                () = sends => {}
                () = reads => {}
            }
        };
        timeout(Duration::from_secs(60), both).await.expect("it goes on");
    }

    /// The window of a peer that sends `rate` bytes a second, as far as its window lets it, for ten seconds.
    async fn settled(window: &mut Window, rate: f64, round_trip: Duration) -> u32 {
        window.reach(round_trip);
        let (mut announced, mut received) = (FOREIGN, 0);
        for _ in 0..200 {
            let span = round_trip.max(Duration::from_millis(50));
            tokio::time::advance(span).await;
            let turns = span.as_secs_f64() / (round_trip + Duration::from_millis(1)).as_secs_f64();
            received += (rate * span.as_secs_f64()).min(f64::from(announced) * turns) as u64;
            if let Some(wider) = window.adjust(1, received) {
                assert!(wider > announced, "it fell");
                window.announce(wider, received);
                announced = wider;
            }
        }
        announced
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_is_what_the_rate_and_the_way_need() {
        let ms = Duration::from_millis;
        for (rate, round_trip, least, most) in [
            // 3 Mbit/s.
            (375e3, ms(20), FOREIGN, FOREIGN),
            (30e6, ms(1), 150_000, 200_000),
            (12.5e6, ms(100), 3_000_000, 3_400_000),
            // A link that needs more than anybody is granted at first.
            (125e6, ms(100), 7 << 20, 9 << 20),
        ] {
            let mut window = Window::growing(Budget::new(64 << 20), FOREIGN, 32 << 20, 2);
            let settled = settled(&mut window, rate, round_trip).await;
            assert!((least..=most).contains(&settled), "{rate} {round_trip:?}: {settled}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_connections_are_granted_is_half_of_the_budget() {
        let budget = Budget::new(64 << 20);
        let mut windows = Vec::new();
        let mut sum = 0;
        for _ in 0..100 {
            let mut window = Window::growing(budget.part(), FOREIGN, 32 << 20, 2);
            sum += 2 * (settled(&mut window, 125e6, Duration::from_millis(100)).await - FOREIGN);
            windows.push(window);
        }
        assert!(sum <= 32 << 20, "{sum}");
        drop(windows);
        let mut window = Window::growing(budget.part(), FOREIGN, 32 << 20, 2);
        let settled = settled(&mut window, 125e6, Duration::from_millis(100)).await;
        assert!(settled >= 7 << 20, "{settled}: all was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_grows_while_much_is_held() {
        let budget = Budget::new(64 << 20);
        budget.take(33 << 20);
        let mut window = Window::growing(budget.part(), FOREIGN, 32 << 20, 2);
        assert_eq!(settled(&mut window, 125e6, Duration::from_millis(100)).await, FOREIGN);
    }
}
