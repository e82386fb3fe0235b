//! The lines: what asks on the left, what answers on the right, and a sentence for what occurs the first time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::conversation::{Conversation, Said};
use super::tap::Seen;
use super::words::{PREFACE, of_kind};
use super::{Opening, What};

pub(super) struct Teller {
    pub(super) begun: Instant,
    colour: bool,
    bodies: bool,
    conversations: BTreeMap<u64, Conversation>,
    /// The kinds of frames that had their sentence; `None` is the preface.
    told: BTreeSet<Option<u8>>,
    /// The second since the beginning, and the frames of it that were shown.
    second: (u64, u32),
    unshown: u64,
}

impl Teller {
    pub(super) fn new(begun: Instant, colour: bool, bodies: bool) -> Self {
        let (conversations, told, second) = Default::default();
        Self { begun, colour, bodies, conversations, told, second, unshown: 0 }
    }

    /// Says what was seen, a line at a time.
    pub(super) fn take(&mut self, seen: Seen, say: &mut dyn FnMut(&str)) {
        let Seen { id, at, opening, lost, asker, frame } = seen;
        let since = at.saturating_duration_since(self.begun);
        let front = format!("{:>9.3} #{id:<4}", since.as_secs_f64());
        if let Some(opening) = opening {
            self.open(id, *opening, &front, say);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if lost > 0 {
            conversation.lose();
            say(&format!(
                "{front}({lost} frames passed too fast to be seen; from here on windows and fields aren't known)"
            ));
        }
        let Some(frame) = frame else {
            self.conversations.remove(&id);
            return say(&format!("{front}the connection has ended"));
        };
        let said = conversation.said(asker, at, &frame);
        let kind = frame.head.map(|head| head.kind);
        if self.second.0 != since.as_secs() {
            self.second = (since.as_secs(), 0);
            let unshown = std::mem::take(&mut self.unshown);
            if unshown > 0 {
                say(&format!("({unshown} frames more than are shown in a second)"));
            }
        }
        if self.second.1 >= MOST_SHOWN {
            self.unshown += 1;
            return;
        }
        self.second.1 += 1;
        self.frame(&front, asker, kind, said, say);
    }

    /// Says which side is which.
    fn open(
        &mut self,
        id: u64,
        (what, opening): (What, Opening),
        front: &str,
        say: &mut dyn FnMut(&str),
    ) {
        if self.conversations.len() >= MOST {
            return say(&format!("{front}isn't followed, as {MOST} connections are"));
        }
        let Opening { dialled, peer, way } = opening;
        let (from, to) = if dialled { ("this backend", &*peer) } else { (&*peer, "this gateway") };
        say(&format!("{front}{from} dialled {to}: {way}"));
        say(&match what {
            What::Tunnel => format!(
                "{front}The roles are transposed: the gateway, which was dialled, asks; the backend, which dialled, answers."
            ),
            What::Visitor => format!("{front}The visitor dialled, and asks; the gateway answers."),
        });
        let conversation = Conversation::new(what, self.bodies);
        let (left, right) = (conversation.name(true), conversation.name(false));
        say(&format!("{:INDENT$}{left:LEFT$}{right}", ""));
        self.conversations.insert(id, conversation);
    }

    fn frame(
        &mut self,
        front: &str,
        asker: bool,
        kind: Option<u8>,
        said: Said,
        say: &mut dyn FnMut(&str),
    ) {
        let Said { stream, line, before, below } = said;
        let (on, dim, off) = match (self.colour, stream) {
            (false, _) => (String::new(), "", ""),
            (true, 0) => (String::new(), "\x1b[2m", "\x1b[0m"),
            // Six colours that are seen on black and on white.
            (true, stream) => (format!("\x1b[3{}m", 1 + stream / 2 % 6), "\x1b[2m", "\x1b[0m"),
        };
        let column = INDENT + if asker { 0 } else { LEFT };
        for line in before {
            say(&format!("{front}{on}⚠ {line}{off}"));
        }
        let line = line.trim_end();
        say(&match asker {
            true => {
                let arrow = "─".repeat(LEFT.saturating_sub(line.chars().count() + 3).max(2));
                format!("{front}{on}{line} {arrow}>{off}")
            }
            false => format!("{front}{on}{:GAP$}<{} {line}{off}", "", "─".repeat(LEFT - GAP - 2)),
        });
        for line in below {
            say(&format!("{:column$}  {on}{line}{off}", ""));
        }
        let kind = kind.map(|kind| if of_kind(kind).0 == "UNKNOWN" { u8::MAX } else { kind });
        if self.told.insert(kind) {
            let sentence = kind.map_or(PREFACE, |kind| of_kind(kind).1);
            say(&format!("{:column$}  {dim}({sentence}){off}", ""));
        }
    }
}

/// Columns of time and connection.
const INDENT: usize = 15;
/// Columns of what asks, its arrow included.
const LEFT: usize = 56;
/// Columns before an arrow that points to the left.
const GAP: usize = 40;
/// Frames that are shown in a second; a reader follows a few.
const MOST_SHOWN: u32 = 500;
/// Connections that are followed at a time.
const MOST: usize = 256;
