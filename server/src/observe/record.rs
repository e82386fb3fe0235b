//! One exchange, from its head to its end.
//!
//! Invariant: it is told exactly once, by its drop, wherever the exchange ends: after its bodies, with a page of the
//! gateway's own, or because the visitor's connection is gone.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use ptth_link::count::index;
use ptth_link::failure::{Failure, Party};
use tokio::time::Instant;

use super::counts::RouteCounts;
use super::{Observe, Request};
use crate::live::TunnelId;

/// How the two bodies ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum End {
    /// The visitor left before it had all.
    #[default]
    Left,
    /// Each as it said.
    Complete,
    /// The response ended before its end.
    Broken,
    /// The request did, or it wasn't wanted.
    Cut,
    /// Others waited for its stream, and nothing of the response was read.
    Ceded,
    /// Nothing moved for too long.
    Still,
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Complete => "complete",
            Self::Broken => "broken",
            Self::Cut => "cut",
            Self::Ceded => "ceded",
            Self::Still => "still",
        }
    }

    fn fault(self) -> Option<Party> {
        match self {
            Self::Complete => None,
            Self::Left | Self::Cut | Self::Ceded => Some(Party::Visitor),
            Self::Broken | Self::Still => Some(Party::Backend),
        }
    }
}

/// What is known of an exchange so far. The default tells nothing: an attempt to deliver a webhook is no exchange of
/// a visitor's.
#[derive(Debug, Default)]
pub(crate) struct Record(Option<Box<Told>>);

#[derive(Debug)]
pub(super) struct Told {
    observe: Arc<Observe>,
    begun: Instant,
    /// If there is an access log.
    request: Option<Request>,
    pub(super) route: Arc<RouteCounts>,
    pub(super) tunnel: Option<TunnelId>,
    pub(super) status: Option<StatusCode>,
    pub(super) failure: Option<Failure>,
    /// From the request's head to its stream, and to the response's head.
    pub(super) queue: Option<Duration>,
    pub(super) head: Option<Duration>,
    /// From the visitor, and to it.
    pub(super) bytes: [u64; 2],
    pub(super) end: End,
}

impl Record {
    /// `request`: what the access log says of it, if there is one.
    pub(crate) fn open(
        observe: &Arc<Observe>,
        begun: Instant,
        request: impl FnOnce() -> Request,
    ) -> Self {
        Self(Some(Box::new(Told {
            begun,
            request: observe.access.is_kept().then(request),
            route: observe.counts.other.clone(),
            tunnel: None,
            status: None,
            failure: None,
            queue: None,
            head: None,
            bytes: [0, 0],
            end: End::Left,
            observe: observe.clone(),
        })))
    }

    /// The route was found; `counts` says where it is counted.
    pub(crate) fn route(&mut self, counts: impl FnOnce(&Observe) -> Arc<RouteCounts>) {
        let Some(told) = &mut self.0 else { return };
        told.route = counts(&told.observe);
    }

    /// It has a stream of a tunnel.
    pub(crate) fn leased(&mut self, tunnel: TunnelId) {
        let Some(told) = &mut self.0 else { return };
        (told.queue, told.tunnel) = (Some(told.begun.elapsed()), Some(tunnel));
    }

    /// A response came, maybe a page of the client's.
    pub(crate) fn responded(&mut self, status: StatusCode, fields: &HeaderMap) {
        let Some(told) = &mut self.0 else { return };
        (told.status, told.head) = (Some(status), Some(told.begun.elapsed()));
        if status.is_client_error() || status.is_server_error() {
            told.failure = Failure::told(fields);
        }
    }

    /// The gateway answers by itself, with a page of so many bytes; without a status, it only resets the stream.
    pub(crate) fn failed(&mut self, failure: Failure, page: Option<(StatusCode, usize)>) {
        let Some(told) = &mut self.0 else { return };
        (told.failure, told.status) = (Some(failure), page.map(|(status, _)| status));
        self.ended(End::Complete, [0, page.map_or(0, |(_, length)| length as u64)]);
    }

    /// One of its bodies had to wait for that party's window so many times.
    pub(crate) fn stalled(&self, party: Party, times: u64) {
        let Some(told) = &self.0 else { return };
        let count = told.observe.counts.stalls.get(index(Some(party)));
        count.filter(|_| times > 0).iter().for_each(|count| count.add(times));
    }

    /// The exchange is dropped. What [`Self::ended`] said before counts.
    pub(crate) fn left(&mut self, end: End, bytes: [u64; 2]) {
        if self.0.as_ref().is_some_and(|told| told.end == End::Left) {
            self.ended(end, bytes);
        }
    }

    /// Nothing more will happen.
    pub(crate) fn ended(&mut self, end: End, bytes: [u64; 2]) {
        let Some(told) = &mut self.0 else { return };
        (told.end, told.bytes) = (end, bytes);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let (counts, whole) = (&self.observe.counts, self.begun.elapsed());
        let party = self.failure.map(|failure| failure.row().party).or(self.end.fault());
        self.route.exchanges.add(self.status, party);
        self.failure.iter().for_each(|failure| counts.failed(*failure));
        self.queue.iter().for_each(|time| counts.queue.observe(*time));
        if let Some(head) = self.head {
            counts.head.observe(head);
            counts.transfer.observe(whole.saturating_sub(head));
        }
        counts.bytes.iter().zip(self.bytes).for_each(|(count, bytes)| count.add(bytes));
        if self.status.is_some() && self.end != End::Complete {
            counts.broken.get(index(self.end.fault())).iter().for_each(|count| count.add(1));
        }
        if let Some(request) = self.request.take() {
            self.observe.access.tell(&request, self, whole);
        }
    }
}
