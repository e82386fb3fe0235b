//! What a visitor sends over HTTP/1.1: no bytes may panic the parser, the verdict may not depend
//! on how they were cut, and an accepted head or chunked body must be one to httparse too.
//!
//! The first byte of the input says how long the pieces are.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use ptth_link::h1::{Decoder, Head, Refusal, RequestReader};

#[path = "../../link/src/h1/oracle.rs"]
mod oracle;

/// What became of the input, however it was cut: neighbouring pieces of a body are one, and what came of a
/// body that was refused doesn't count.
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
    let mut steps = Vec::new();
    let (mut reader, mut body, mut input) = (RequestReader::default(), None, BytesMut::new());
    // Where the message under way began, and its chunked body.
    let (mut at, mut chunks) = (0, None);
    for piece in stream.chunks(piece) {
        input.extend_from_slice(piece);
        loop {
            let before = input.len();
            let read = match &mut body {
                None => read_head(&mut reader, &mut input, &mut body),
                Some(body) => read_body(body, &mut input),
            };
            let used = before - input.len();
            match read {
                Ok(Some(Step::Head(_, head))) => {
                    oracle::agree(&stream[at..at + used], head.length);
                    chunks = head.length.is_none().then_some(at + used);
                    steps.push(Step::Head(used, head));
                }
                Ok(_) if used > 0 => match steps.last_mut() {
                    Some(Step::Body(body)) => *body += used,
                    _ => steps.push(Step::Body(used)),
                },
                Ok(_) => {}
                Err(refusal) => {
                    steps.pop_if(|step| matches!(step, Step::Body(_)));
                    steps.push(Step::Refused(refusal));
                    return steps;
                }
            }
            at += used;
            if body.as_ref().is_some_and(Decoder::is_done) {
                if let Some(begin) = chunks.take() {
                    oracle::agree_chunked(&stream[begin..at]);
                }
                steps.push(Step::End);
                body = None;
            } else if used == 0 {
                break;
            }
        }
    }
    steps
}

fn read_head(
    reader: &mut RequestReader,
    input: &mut BytesMut,
    body: &mut Option<Decoder>,
) -> Result<Option<Step>, Refusal> {
    let Some(request) = reader.read(input)? else { return Ok(None) };
    *body = Some(request.body);
    Ok(Some(Step::Head(0, request.head)))
}

fn read_body(body: &mut Decoder, input: &mut BytesMut) -> Result<Option<Step>, Refusal> {
    body.next(input).map(|_| None)
}
