//! What a visitor sends over HTTP/1.1: no bytes may panic the checker, the verdict may not depend
//! on how they were cut, and an accepted head or chunked body must be one to httparse too.
//!
//! The first byte of the input says how long the pieces are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptth_server::public::strict::{BodyKind, Checker, Head, Next, Refusal};

#[path = "../../server/src/public/strict/oracle.rs"]
mod oracle;

/// What became of the input, however it was cut: neighbouring pieces of a body are one.
#[derive(Debug, PartialEq)]
enum Step {
    Head(usize, Head),
    Body(usize),
    End,
    Refused(Refusal),
}

fuzz_target!(|data: &[u8]| {
    let Some((piece, stream)) = data.split_first() else {
        return;
    };
    let whole = feed(stream, stream.len().max(1));
    assert_eq!(whole, feed(stream, usize::from(*piece).max(1)));
    assert_eq!(whole, feed(stream, 1));
});

fn feed(stream: &[u8], piece: usize) -> Vec<Step> {
    let (mut checker, mut steps) = (Checker::new(), Vec::new());
    let (mut from, mut to) = (0, 0);
    // Where the chunked body under way began.
    let mut chunks = None;
    while to < stream.len() {
        to = stream.len().min(to + piece);
        loop {
            let raw = &stream[from..to];
            match checker.next(raw) {
                Next::More => break,
                Next::Head { len, head } => {
                    let length = match head.body {
                        BodyKind::Length(length) => Some(length),
                        BodyKind::None | BodyKind::Chunked => None,
                    };
                    oracle::agree(&raw[..len], length, head.body == BodyKind::Chunked);
                    steps.push(Step::Head(len, head));
                    from += len;
                    chunks = (head.body == BodyKind::Chunked).then_some(from);
                }
                Next::Body { len, .. } => {
                    assert!(0 < len && len <= raw.len());
                    match steps.last_mut() {
                        Some(Step::Body(body)) => *body += len,
                        _ => steps.push(Step::Body(len)),
                    }
                    from += len;
                }
                Next::End => {
                    if let Some(begin) = chunks.take() {
                        oracle::agree_chunked(&stream[begin..from]);
                    }
                    steps.push(Step::End);
                }
                Next::Refuse(refusal) => {
                    steps.push(Step::Refused(refusal));
                    return steps;
                }
            }
        }
    }
    steps
}
