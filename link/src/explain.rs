//! The wire explained: each frame of a connection as a line, as it is sent and received.
//!
//! ```text
//! connection's task: tap ─ bounded queue ─> thread: decode, explain ─ logging::Lines ─> stdout
//! ```
//!
//! Invariant: no connection waits for it. What doesn't fit into a queue is dropped, counted and told; secrets are masked
//! and bodies aren't shown, unless that is asked for.

mod conversation;
mod fields;
pub mod keys;
mod tap;
mod teller;
#[cfg(test)]
mod tests;
mod words;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ProtocolVersion;

use crate::alpn::display;
use crate::logging::Lines;
use crate::settings::Sources;

use tap::Seen;
use teller::Teller;

pub use tap::Tap;

/// What is to be explained.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    pub tunnels: bool,
    pub visitors: bool,
    /// The beginning of each piece of a body, too.
    pub bodies: bool,
}

impl Settings {
    /// Of the settings `explain` and `explain_bodies`, which the program declares; and `explain_visitors`, if it has
    /// visitors.
    pub fn read(sources: &Sources<'_>, has_visitors: bool) -> Self {
        let bodies = sources.switch("explain_bodies");
        let visitors = has_visitors && sources.switch("explain_visitors");
        let tunnels = sources.switch("explain") || bodies && !visitors;
        Self { tunnels, visitors, bodies }
    }
}

/// A connection's kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// The gateway asks, and the backend answers.
    Tunnel,
    /// The visitor asks, and the gateway answers.
    Visitor,
}

/// How a connection came to be.
#[derive(Clone, Debug)]
pub struct Opening {
    /// By this side.
    dialled: bool,
    /// The other side's address.
    peer: String,
    /// TLS, and what was agreed on by it.
    way: String,
}

impl Opening {
    pub fn new(
        dialled: bool,
        peer: impl ToString,
        version: Option<ProtocolVersion>,
        label: Option<&[u8]>,
    ) -> Self {
        let label =
            label.map_or_else(|| "no ALPN".to_owned(), |it| format!("ALPN {}", display(it)));
        let way = match version {
            Some(ProtocolVersion::TLSv1_3) => format!("TLS 1.3, {label}"),
            Some(_) => format!("TLS 1.2, {label}"),
            None => "without TLS".to_owned(),
        };
        Self { dialled, peer: peer.to_string(), way }
    }
}

/// Makes taps. Cheap to clone; the default makes none.
#[derive(Clone, Debug, Default)]
pub struct Explain(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: SyncSender<Item>,
    tunnels: bool,
    visitors: bool,
    bodies: bool,
    connections: AtomicU64,
}

#[derive(Debug)]
enum Item {
    Seen(Seen),
    /// Is dropped when all before it is written.
    Mark(#[allow(dead_code, reason = "held for its drop")] SyncSender<()>),
}

impl Explain {
    /// Explains to stdout what `settings` say.
    pub fn start(settings: Settings) -> Self {
        // https://no-color.org: set and not empty.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
        Self::to(io::stdout(), settings, !plain && io::stdout().is_terminal())
    }

    /// Explains to `out`, from threads that end with the last tap and the last clone of it.
    pub fn to(out: impl Write + Send + 'static, settings: Settings, colour: bool) -> Self {
        let Settings { tunnels, visitors, bodies } = settings;
        if !tunnels && !visitors {
            return Self::default();
        }
        let (queue, items) = sync_channel(QUEUE);
        let (begun, connections) = (Instant::now(), AtomicU64::default());
        let lines = Lines::to(out);
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the last tap; an exit waits for it no longer than flush"
        )]
        thread::spawn(move || explain(&items, &lines, Teller::new(begun, colour, bodies)));
        Self(Some(Arc::new(Inner { queue, tunnels, visitors, bodies, connections })))
    }

    /// One for a connection of this kind, if that is explained.
    pub fn tap(&self, what: What, opening: impl FnOnce() -> Opening) -> Option<Tap> {
        let inner = self.0.as_ref()?;
        let wanted = if what == What::Tunnel { inner.tunnels } else { inner.visitors };
        let id = || inner.connections.fetch_add(1, Ordering::Relaxed) + 1;
        wanted.then(|| Tap::new(inner.clone(), id(), (what, opening())))
    }

    /// Waits until all so far is written, a second at most. Blocks.
    pub fn flush(&self) {
        let Some(inner) = &self.0 else { return };
        let (mark, written) = sync_channel(0);
        if inner.queue.try_send(Item::Mark(mark)).is_ok() {
            let _ = written.recv_timeout(LAST);
        }
    }
}

fn explain(items: &Receiver<Item>, lines: &Lines, mut teller: Teller) {
    for item in items {
        match item {
            Item::Seen(seen) => {
                teller.take(seen, &mut |line| lines.add(|text| text.push_str(line)));
            }
            Item::Mark(_mark) => lines.flush(),
        }
    }
}

/// Frames on their way to the thread: 16 MiB of the largest fields at most.
const QUEUE: usize = 1024;
/// How long an end waits for a terminal; the lines' own wait is as long.
const LAST: Duration = Duration::from_secs(2);
