//! Tables of responses: heads, what they frame, and bodies out of their framing.

use http::Method;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use httparse::Status;

use super::super::body::{MERGED, SMALL};
use super::*;

/// The status, how the body is framed, whether the connection persists and the length that is told.
fn judge(method: Method, head: &str) -> Result<(u16, String, bool, Option<String>), String> {
    let mut input = BytesMut::from(head.replace('|', "\r\n").as_str());
    let read = ResponseReader::default().read(&mut input, &method);
    let read = read.map_err(|refusal| refusal.reason.to_owned())?;
    let Response { parts, body, keep_alive } = read.ok_or("not whole")?;
    let length = parts.headers.get(CONTENT_LENGTH);
    let length = length.map(|value| value.to_str().unwrap().to_owned());
    let body = match body {
        Decoder::Chunked(_) => "Chunked".to_owned(),
        body => format!("{body:?}"),
    };
    Ok((parts.status.as_u16(), body, keep_alive, length))
}

#[test]
fn a_response_is_framed_in_one_way() {
    let table = [
        ("200 OK|Content-Length: 5||", "Length(5)", true, Some("5")),
        ("200 OK|Content-Length: 0||", "Done", true, Some("0")),
        ("200 OK|Content-Length: 5|Content-Length: 5||", "Length(5)", true, None),
        ("200 OK|Content-Length: 5|Connection: x, Close||", "Length(5)", false, Some("5")),
        ("200|Transfer-Encoding: chunked||", "Chunked", true, None),
        ("200 OK|Transfer-Encoding:  Chunked ||", "Chunked", true, None),
        ("200 OK|Transfer-Encoding: chunked|Content-Length: 5||", "Chunked", false, None),
        ("200 OK||", "UntilClose", false, None),
        ("204 No Content||", "Done", true, None),
        ("204 No Content|Content-Length: 0||", "Done", true, None),
        ("204 No Content|Content-Length: 5||", "Done", false, None),
        ("204 No Content|Transfer-Encoding: chunked||", "Done", false, None),
        ("304 Not Modified||", "Done", true, None),
        ("304 Not Modified|Content-Length: 0||", "Done", true, Some("0")),
        ("304 Not Modified|Content-Length: 5||", "Done", false, Some("5")),
        ("304 Not Modified|Transfer-Encoding: chunked||", "Done", false, None),
        ("304 Not Modified|Transfer-Encoding: chunked|Content-Length: 5||", "Done", false, None),
        ("103 Early Hints||", "Done", true, None),
        ("103 Early Hints|Content-Length: 5||", "Done", false, Some("5")),
        ("101 Switching Protocols||", "Done", false, None),
    ];
    for (head, body, keep, length) in table {
        let got = judge(Method::GET, &format!("HTTP/1.1 {head}")).unwrap();
        let length = length.map(str::to_owned);
        assert_eq!((got.1.as_str(), got.2, got.3), (body, keep, length), "{head}");
    }
    for (fields, keep, length) in [
        ("", true, None),
        ("Content-Length: 0|", true, Some("0")),
        ("Content-Length: 5|", false, Some("5")),
        ("Transfer-Encoding: chunked|", false, None),
    ] {
        let got = judge(Method::HEAD, &format!("HTTP/1.1 200 OK|{fields}|")).unwrap();
        assert_eq!(got, (200, "Done".to_owned(), keep, length.map(str::to_owned)), "{fields}");
    }
    let old = |fields| judge(Method::GET, &format!("HTTP/1.0 200 OK|Content-Length: 1|{fields}|"));
    assert!(!old("").unwrap().2);
    assert!(old("Connection: Keep-Alive|").unwrap().2);
}

#[test]
fn what_is_no_head_or_could_be_two_is_refused() {
    let table = [
        "HTTP/2.0 200 OK||",
        "HTTP/1.1 099 No||",
        "HTTP/1.1 20 OK||",
        "SSH-2.0-OpenSSH||",
        "|HTTP/1.1 200 OK|Content-Length: 0||",
        "|",
        "HTTP/1.1 200 OK|no colon||",
        "HTTP/1.1 200 OK|a b: c||",
        "HTTP/1.1 200 OK|a: b| folded||",
        "HTTP/1.1 200 OK|a: b\u{0}||",
        "HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 6||",
        "HTTP/1.1 200 OK|Content-Length: 5, 5||",
        "HTTP/1.1 200 OK|Content-Length: +5||",
        "HTTP/1.1 200 OK|Content-Length: -5||",
        "HTTP/1.1 200 OK|Content-Length:||",
        "HTTP/1.1 200 OK|Content-Length: 99999999999999999999||",
        "HTTP/1.1 200 OK|Content-Length: 00000000000000000005||",
        "HTTP/1.0 200 OK|Transfer-Encoding: chunked||",
        "HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked||",
        "HTTP/1.1 200 OK|Transfer-Encoding: chunked, chunked||",
        "HTTP/1.1 200 OK|Transfer-Encoding: chunked,||",
        "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Transfer-Encoding: chunked||",
        "HTTP/1.1 200 OK|Transfer-Encoding: identity||",
        "HTTP/1.1 204 No Content|Transfer-Encoding: gzip||",
    ];
    for head in table {
        let got = judge(Method::GET, head);
        assert!(got.as_ref().is_err_and(|why| why != "not whole"), "{head}: {got:?}");
    }
    let many = format!("HTTP/1.1 200 OK|{}|", "a: b|".repeat(LOOSE.head.fields + 1));
    assert!(judge(Method::GET, &many).is_err());
}

#[test]
fn a_request_is_framed_by_what_is_known_and_not_by_what_it_says() {
    let mut fields = HeaderMap::new();
    for (name, value) in [("host", "evil"), ("content-length", "7"), ("x", "1"), ("x", "2")] {
        fields.append(name, HeaderValue::from_static(value));
    }
    fields.append("transfer-encoding", HeaderValue::from_static("chunked"));
    let host = HeaderValue::from_static("a.test");
    let table = [
        (Framing::None, ""),
        (Framing::Length(5), "content-length: 5\r\n"),
        (Framing::Chunked, "transfer-encoding: chunked\r\n"),
    ];
    for (framing, last) in table {
        let head = write_request(&Method::PUT, "/?a", &host, &fields, framing);
        let expected = format!("PUT /?a HTTP/1.1\r\nhost: a.test\r\nx: 1\r\nx: 2\r\n{last}\r\n");
        assert_eq!(head, expected);
    }
}

/// The data, the trailers and whether it ended, in pieces of `size`.
fn read(mut decoder: Decoder, bytes: &[u8], size: usize) -> Result<(String, usize, bool), Refusal> {
    let (mut data, mut trailers, mut input) = (Vec::new(), 0, BytesMut::new());
    for piece in bytes.chunks(size) {
        input.extend_from_slice(piece);
        while let Some(part) = decoder.next(&mut input)? {
            match part {
                Part::Data(bytes) => data.extend_from_slice(&bytes),
                Part::Trailers(fields) => trailers += fields.len(),
            }
        }
    }
    Ok((String::from_utf8(data).unwrap(), trailers, decoder.is_done()))
}

#[test]
fn chunks_come_apart_however_they_are_cut() {
    let table: [(&[u8], &str, usize); 4] = [
        (b"0\r\n\r\n", "", 0),
        (b"5\r\nhello\r\n0\r\n\r\n", "hello", 0),
        (b"5;a=b\r\nhello\r\n00a \r\n, you ther\r\n0\r\n\r\n", "hello, you ther", 0),
        (b"1\r\nx\r\n0\r\nChecksum: 1\r\nMore: 2\r\n\r\n", "x", 2),
    ];
    for (bytes, data, trailers) in table {
        for size in 1..=bytes.len() {
            let got = read(Decoder::chunked(&LOOSE), bytes, size).unwrap();
            assert_eq!(got, (data.to_owned(), trailers, true), "{size}");
        }
        for length in 0..bytes.len() {
            assert!(!read(Decoder::chunked(&LOOSE), &bytes[..length], 64).unwrap().2, "{length}");
        }
    }
}

#[test]
fn small_chunks_that_are_there_together_are_one_part() {
    let large = format!("{:x}\r\n{}\r\n", SMALL, "y".repeat(SMALL as usize));
    let wire = format!("{}{large}1\r\nz\r\n0\r\n\r\n", "1\r\nx\r\n".repeat(30_000));
    let mut input = BytesMut::from(wire.as_str());
    let (mut decoder, mut lengths) = (Decoder::chunked(&LOOSE), Vec::new());
    while let Some(Part::Data(data)) = decoder.next(&mut input).unwrap() {
        lengths.push(data.len());
    }
    assert!(decoder.is_done());
    let rest = 30_000 - 2 * MERGED;
    assert_eq!(lengths, [MERGED, MERGED, rest, SMALL as usize, 1]);
}

#[test]
fn chunks_that_are_none_are_refused() {
    let long = format!("1;{}", "x".repeat(LOOSE.chunk_line));
    let endless = format!("0\r\nx: {}", "x".repeat(LOOSE.trailers.bytes));
    let table = [
        "\r\n",
        "-1\r\n",
        "+1\r\nx",
        "zz\r\n",
        "0x1\r\n",
        ";a\r\n",
        "1\nx\n",
        "1\r\nxy",
        "1\r\nx\n",
        "11111111111111111\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\na b: c\r\n\r\n",
        &long,
        &endless,
    ];
    for bytes in table {
        for size in [1, 64, 65_536] {
            let refused = read(Decoder::chunked(&LOOSE), bytes.as_bytes(), size);
            assert!(refused.is_err(), "{bytes:?} in pieces of {size}: {refused:?}");
        }
    }
}

#[test]
fn a_length_takes_no_more_than_its_own() {
    let mut input = BytesMut::from("helloHTTP/1.1");
    let mut decoder = Decoder::Length(5);
    assert!(matches!(decoder.next(&mut input), Ok(Some(Part::Data(data))) if data == "hello"));
    assert!(decoder.is_done() && input == "HTTP/1.1");
    assert!(matches!(decoder.next(&mut input), Ok(None)));
}

#[test]
fn only_a_body_until_close_may_end_with_the_connection() {
    let mut trailing = Decoder::chunked(&LOOSE);
    assert!(trailing.next(&mut BytesMut::from("0\r\n")).unwrap().is_none());
    for (mut decoder, fine) in [
        (Decoder::Length(1), false),
        (Decoder::chunked(&LOOSE), false),
        (trailing, false),
        (Decoder::UntilClose, true),
        (Decoder::Done, true),
    ] {
        assert_eq!(decoder.end(), fine, "{decoder:?}");
    }
}

/// One byte of a sound response's head changed: what is still accepted, httparse reads the same way.
#[test]
fn httparse_reads_every_accepted_response_alike() {
    for sound in [
        "HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 404\r\nX: \t1 2 \r\nx-y:\r\nConnection: keep-alive\r\n\r\n",
        "HTTP/1.1 200 \nServer: old\n\n",
    ] {
        for at in 0..sound.len() {
            for byte in streams::MUTATIONS {
                let mut raw = sound.as_bytes().to_vec();
                raw[at] = *byte;
                compare(&raw);
            }
        }
    }
}

fn compare(raw: &[u8]) {
    let text = raw.escape_ascii();
    let mut input = BytesMut::from(raw);
    let read = ResponseReader::default().read(&mut input, &Method::HEAD);
    let mut room = [httparse::EMPTY_HEADER; 100];
    let mut other = httparse::Response::new(&mut room);
    let parsed = other.parse(raw);
    match read {
        Ok(Some(response)) => {
            assert_eq!(parsed, Ok(Status::Complete(raw.len() - input.len())), "{text}");
            assert_eq!(other.code, Some(response.parts.status.as_u16()), "{text}");
            let theirs = other
                .headers
                .iter()
                .map(|field| (field.name.to_ascii_lowercase(), field.value.trim_ascii().to_vec()));
            let ours = response.parts.headers.iter();
            let ours = ours.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            let [mut ours, mut theirs] = [ours.collect::<Vec<_>>(), theirs.collect()];
            ours.sort();
            theirs.sort();
            assert_eq!(ours, theirs, "{text}");
        }
        Ok(None) => assert!(!matches!(parsed, Ok(Status::Complete(_))), "{text}"),
        // Stricter is what it is for.
        Err(_) => {}
    }
}

/// RFC 9112 §9.3
#[test]
fn who_keeps_a_connection_says_so() {
    for (version, fields, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: upgrade , CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: x, Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let raw = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(head(&raw).keep_alive, kept, "{raw:?}");
    }
}
