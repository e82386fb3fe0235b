//! What is known of one connection, and what each of its frames means.
//!
//! In:  its frames, in order. Out: the text of each ([`Said`]). No I/O happens here.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::What;
use super::fields::{Fields, text};
use super::tap::Frame;
use super::words::{HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, of_error, of_kind, of_setting};
use crate::h2::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, GOAWAY, HEADERS, Head, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};

pub(super) struct Conversation {
    what: What,
    bodies: bool,
    asker: Side,
    answerer: Side,
    /// Those without an answer: whether the asker sent it, its bytes, and when.
    pings: VecDeque<(bool, Vec<u8>, Instant)>,
    /// Frames went by unseen, so that the windows aren't known.
    lost: bool,
}

/// What one side may send, and the fields that it sent.
struct Side {
    fields: Fields,
    connection: i64,
    initial: i64,
    /// By stream, while this side sends on it.
    streams: BTreeMap<u32, Sending>,
    /// The window in each of this side's SETTINGS that the other one has to acknowledge.
    settings: VecDeque<Option<i64>>,
}

#[derive(Clone, Copy)]
struct Sending {
    window: i64,
    /// Since when it has no window left, and whether the connection has none.
    stalled: Option<(Instant, bool)>,
}

/// The text of a frame.
#[derive(Default)]
pub(super) struct Said {
    pub(super) stream: u32,
    pub(super) line: String,
    /// Lines that stand before it.
    pub(super) before: Vec<String>,
    /// Lines that stand below it.
    pub(super) below: Vec<String>,
}

impl Default for Side {
    fn default() -> Self {
        let (streams, settings) = Default::default();
        let (connection, initial) = (USUAL_WINDOW, USUAL_WINDOW);
        Self { fields: Fields::default(), connection, initial, streams, settings }
    }
}

impl Side {
    fn begin(&mut self, stream: u32) {
        if self.streams.len() < MOST_STREAMS {
            let sending = Sending { window: self.initial, stalled: None };
            self.streams.entry(stream).or_insert(sending);
        }
    }

    /// The other side's SETTINGS change the windows of all streams (RFC 9113 §6.9.2).
    fn change(&mut self, initial: i64) {
        let change = initial - self.initial;
        self.initial = initial;
        for sending in self.streams.values_mut() {
            sending.window = sending.window.saturating_add(change);
        }
    }
}

impl Conversation {
    pub(super) fn new(what: What, bodies: bool) -> Self {
        let (asker, answerer, pings) = Default::default();
        Self { what, bodies, asker, answerer, pings, lost: false }
    }

    /// Notes that frames of it went by unseen.
    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.asker.fields.lose();
        self.answerer.fields.lose();
    }

    fn side(&mut self, asker: bool) -> &mut Side {
        if asker { &mut self.asker } else { &mut self.answerer }
    }

    pub(super) fn said(&mut self, asker: bool, at: Instant, frame: &Frame) -> Said {
        let Some(head) = &frame.head else {
            return Said { line: "PRI * HTTP/2.0 (the preface)".to_owned(), ..Said::default() };
        };
        let mut said = Said { stream: head.stream, ..Said::default() };
        let what = match head.kind {
            _ if head.is_missized() => None,
            DATA => self.data(asker, at, (head, &frame.payload), &mut said),
            HEADERS | CONTINUATION => self.fields(asker, (head, &frame.payload), &mut said),
            RST_STREAM => {
                self.asker.streams.remove(&head.stream);
                self.answerer.streams.remove(&head.stream);
                Some(of_error(head.code))
            }
            SETTINGS => self.settings(asker, (head, &frame.payload), &mut said),
            PING => self.ping(asker, at, (head, &frame.payload)),
            GOAWAY => goaway(&frame.payload, &mut said),
            WINDOW_UPDATE => self.update(asker, (head, &frame.payload)),
            _ => Some(format!("{} bytes", head.length)),
        };
        let malformed = || format!("of {} bytes, which is malformed (RFC 9113 §4.2)", head.length);
        let what = what.unwrap_or_else(malformed);
        let mut name = of_kind(head.kind).0.to_owned();
        if name == "UNKNOWN" {
            name = format!("frame of type 0x{:x}", head.kind);
        }
        said.line = match head.stream {
            0 => format!("{name} {what}"),
            stream => format!("{name} stream={stream} {what}"),
        };
        said
    }

    fn data(
        &mut self,
        asker: bool,
        at: Instant,
        (head, payload): (&Head, &[u8]),
        said: &mut Said,
    ) -> Option<String> {
        let end = head.flags & END_STREAM != 0;
        let length = i64::from(head.length);
        let reader = self.name(!asker);
        let (lost, bodies) = (self.lost, self.bodies);
        let side = self.side(asker);
        side.connection -= length;
        let connection = side.connection;
        if let Some(sending) = side.streams.get_mut(&head.stream) {
            sending.window -= length;
            let waited = sending.stalled.take().map(|(since, all)| (at - since, all));
            if let Some((time, all)) = waited.filter(|(time, _)| *time >= STALL && !lost) {
                let scope = if all { " for the connection" } else { "" };
                said.before.push(format!(
                    "stream {} waited {:.1} s for the {reader}'s window{scope}",
                    head.stream,
                    time.as_secs_f64()
                ));
            }
            let out = sending.window <= 0 || connection <= 0;
            sending.stalled = (out && !end).then_some((at, connection <= 0));
        }
        if end {
            side.streams.remove(&head.stream);
        }
        let padded = head.flags & PADDED != 0;
        let (padding, body) = match padded {
            true => (1 + u32::from(*payload.first()?), payload.get(1..)?),
            false => (0, payload),
        };
        let size = head.length.checked_sub(padding)?;
        if bodies && size > 0 {
            let body = body.get(..size as usize).unwrap_or(body);
            said.below.push(shown(body, size as usize));
        }
        Some(format!("{size} bytes{}", if end { " END_STREAM" } else { "" }))
    }

    fn fields(
        &mut self,
        asker: bool,
        (head, payload): (&Head, &[u8]),
        said: &mut Said,
    ) -> Option<String> {
        let end = head.flags & END_STREAM != 0 && head.kind == HEADERS;
        if head.kind == HEADERS && asker {
            self.asker.begin(head.stream);
            self.answerer.begin(head.stream);
        }
        let side = self.side(asker);
        if end {
            side.streams.remove(&head.stream);
        }
        let whole = payload.len() == head.length as usize;
        let Some(part) = block(head, payload) else {
            side.fields.lose();
            return None;
        };
        side.fields.add(part, whole);
        if head.flags & END_HEADERS != 0 {
            said.below = side.fields.take();
        }
        let more = if head.flags & END_HEADERS == 0 { ", more follows" } else { "" };
        let end = if end { " END_STREAM" } else { "" };
        Some(format!("{} bytes{more}{end}", head.length))
    }

    fn settings(
        &mut self,
        asker: bool,
        (head, payload): (&Head, &[u8]),
        said: &mut Said,
    ) -> Option<String> {
        if head.flags & ACK != 0 {
            if let Some(Some(window)) = self.side(!asker).settings.pop_front() {
                self.side(asker).change(window);
            }
            return Some("ACK".to_owned());
        }
        let mut window = None;
        for setting in payload.chunks_exact(SETTING) {
            let (id, value) = setting.split_first_chunk()?;
            let (id, value) = (u16::from_be_bytes(*id), u32::from_be_bytes(*value.first_chunk()?));
            match id {
                INITIAL_WINDOW_SIZE => window = Some(i64::from(value)),
                HEADER_TABLE_SIZE => self.side(!asker).fields.allow(value),
                _ => {}
            }
            said.below.push(format!("{} = {value}", of_setting(id)));
        }
        let settings = &mut self.side(asker).settings;
        if settings.len() < MOST_WAITING {
            settings.push_back(window);
        }
        Some(String::new())
    }

    fn ping(
        &mut self,
        asker: bool,
        at: Instant,
        (head, payload): (&Head, &[u8]),
    ) -> Option<String> {
        if head.flags & ACK == 0 {
            if self.pings.len() == MOST_WAITING {
                self.pings.pop_front();
            }
            self.pings.push_back((asker, payload.to_vec(), at));
            return Some(String::new());
        }
        let asked = |ping: &(bool, Vec<u8>, Instant)| ping.0 != asker && ping.1 == payload;
        let asked = self.pings.iter().position(asked).and_then(|place| self.pings.remove(place));
        Some(match asked {
            Some((.., since)) => format!("ACK after {:.1} ms", (at - since).as_secs_f64() * 1e3),
            None => "ACK of no PING".to_owned(),
        })
    }

    fn update(&mut self, asker: bool, (head, payload): (&Head, &[u8])) -> Option<String> {
        let more = u32::from_be_bytes(*payload.first_chunk()?) & (u32::MAX >> 1);
        let lost = self.lost;
        let side = self.side(!asker);
        let window = match head.stream {
            0 => Some(&mut side.connection),
            stream => side.streams.get_mut(&stream).map(|sending| &mut sending.window),
        };
        let whole = if head.stream == 0 { "connection " } else { "" };
        let Some(window) = window.filter(|_| !lost) else {
            return Some(format!("{whole}+{more}"));
        };
        let before = *window;
        *window = before.saturating_add(i64::from(more));
        Some(format!("{whole}+{more}: {before} → {window}"))
    }

    /// What the asker is, or the other side.
    pub(super) fn name(&self, asker: bool) -> &'static str {
        match (self.what, asker) {
            (What::Tunnel, true) | (What::Visitor, false) => "gateway",
            (What::Tunnel, false) => "backend",
            (What::Visitor, true) => "visitor",
        }
    }
}

fn goaway(payload: &[u8], said: &mut Said) -> Option<String> {
    let (last, rest) = payload.split_first_chunk()?;
    let (code, words) = rest.split_first_chunk()?;
    if !words.is_empty() {
        said.below.push(format!("\"{}\"", text(words, MOST_WORDS)));
    }
    let last = u32::from_be_bytes(*last) & (u32::MAX >> 1);
    Some(format!("{}, last stream {last}", of_error(u32::from_be_bytes(*code))))
}

/// The part of a field block in a frame, without padding and priority (RFC 9113 §6.2).
fn block<'a>(head: &Head, payload: &'a [u8]) -> Option<&'a [u8]> {
    let (mut part, mut padding) = (payload, 0);
    if head.kind == HEADERS && head.flags & PADDED != 0 {
        let (length, rest) = part.split_first()?;
        (padding, part) = (usize::from(*length), rest);
    }
    if head.kind == HEADERS && head.flags & PRIORITY != 0 {
        part = part.get(PRIORITY_FIELDS..)?;
    }
    part.get(..part.len().checked_sub(padding)?)
}

/// The beginning of a body, as text where it is some.
fn shown(body: &[u8], size: usize) -> String {
    let is_text = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    let part = body.get(..MOST_TEXT).unwrap_or(body);
    let more = if size > part.len() { "…" } else { "" };
    if part.iter().all(is_text) {
        return format!("\"{}{more}\"", text(part, MOST_TEXT));
    }
    let part = body.get(..MOST_BYTES).unwrap_or(body);
    let more = if size > part.len() { "…" } else { "" };
    format!("{}{more}", crate::crypto::hex(part))
}

const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
/// Bytes of a dependency and a weight.
const PRIORITY_FIELDS: usize = 5;
/// Bytes of one setting.
const SETTING: usize = 6;
/// Until SETTINGS say otherwise (RFC 9113 §6.9.2).
const USUAL_WINDOW: i64 = 65_535;
/// Streams whose windows are kept. A backend lets 2,048 be open.
const MOST_STREAMS: usize = 4096;
/// PINGs and SETTINGS without an answer; more are a flood.
const MOST_WAITING: usize = 16;
/// A shorter wait is one round trip of a large body.
const STALL: Duration = Duration::from_millis(100);
/// Of a GOAWAY's text.
const MOST_WORDS: usize = 255;
/// Of a body, as text and as hexadecimal digits.
const MOST_TEXT: usize = 200;
const MOST_BYTES: usize = 48;
