//! The names of HTTP/2's frames, settings and errors, and one sentence for each kind of frame.

use std::borrow::Cow;

use h2::Reason;

use crate::h2::goaway::Why;

/// The preface, which is no frame and has no type.
pub(super) const PREFACE: &str =
    "The side that asks begins with these 24 bytes, whichever side dialled (RFC 9113 §3.4).";

/// The name of a frame's type, and what it is for.
pub(super) fn of_kind(kind: u8) -> (&'static str, &'static str) {
    match kind {
        0 => ("DATA", "DATA is a part of a body, and uses up the windows (RFC 9113 §6.1)."),
        1 => (
            "HEADERS",
            "HEADERS has the fields of a request, of a response, or of trailers, compressed by HPACK (RFC 9113 §6.2, RFC 7541).",
        ),
        2 => {
            ("PRIORITY", "PRIORITY was a hint that has no effect any more (RFC 9113 §5.3.2, §6.3).")
        }
        3 => {
            ("RST_STREAM", "RST_STREAM ends one stream at once; the others go on (RFC 9113 §6.4).")
        }
        4 => (
            "SETTINGS",
            "SETTINGS says what its sender is ready to take; the other side acknowledges it (RFC 9113 §6.5).",
        ),
        5 => (
            "PUSH_PROMISE",
            "PUSH_PROMISE announces a response without a request, which no side of 2ptth allows (RFC 9113 §6.6).",
        ),
        6 => (
            "PING",
            "PING is answered by the same eight bytes: the proof of life, and the round trip (RFC 9113 §6.7).",
        ),
        7 => (
            "GOAWAY",
            "GOAWAY ends the connection in order: no stream above the last one that it names was looked at (RFC 9113 §6.8).",
        ),
        8 => (
            "WINDOW_UPDATE",
            "WINDOW_UPDATE lets the other side send so many more bytes of DATA (RFC 9113 §6.9).",
        ),
        9 => {
            ("CONTINUATION", "CONTINUATION is the rest of fields that didn't fit (RFC 9113 §6.10).")
        }
        16 => ("PRIORITY_UPDATE", "PRIORITY_UPDATE says how urgent a response is (RFC 9218 §7.1)."),
        _ => ("UNKNOWN", "A frame of a type that a side doesn't know is ignored (RFC 9113 §5.5)."),
    }
}

pub(super) fn of_setting(id: u16) -> Cow<'static, str> {
    match id {
        1 => "HEADER_TABLE_SIZE".into(),
        2 => "ENABLE_PUSH".into(),
        3 => "MAX_CONCURRENT_STREAMS".into(),
        INITIAL_WINDOW_SIZE => "INITIAL_WINDOW_SIZE".into(),
        5 => "MAX_FRAME_SIZE".into(),
        6 => "MAX_HEADER_LIST_SIZE".into(),
        8 => "ENABLE_CONNECT_PROTOCOL".into(),
        9 => "NO_RFC7540_PRIORITIES".into(),
        _ => format!("0x{id:x}").into(),
    }
}

/// An error code (RFC 9113 §7), or a reason of a gateway of ours.
pub(super) fn of_error(code: u32) -> String {
    let ours = Why::ALL.into_iter().find(|why| u32::from(*why) == code);
    match ours {
        Some(why) => format!("0x{code:x} (2ptth: {why})"),
        None if code <= LAST_ERROR => {
            // h2 shows the names alone by `Debug`.
            format!("{:?}", Reason::from(code))
        }
        None => format!("0x{code:x}"),
    }
}

pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
/// HTTP_1_1_REQUIRED.
const LAST_ERROR: u32 = 0xd;
