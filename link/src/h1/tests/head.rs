//! Tables of heads: what is sound, and what it frames.

use super::*;

#[test]
fn request_lines_have_one_spelling() {
    assert_refused(
        400,
        [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\tGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\0GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /\r\n\r\n",
            "GET\r\n\r\n",
            "GET / \r\nHost: a\r\n\r\n",
            "GET HTTP/1.1\r\nHost: a\r\n\r\n",
            "GE:T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "G\u{e9}T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
            "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1,1\r\nHost: a\r\n\r\n",
            "GET / HTTP/+1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1\r\nHost: a\r\n\r\n",
            "GET / XTTP/1.1\r\nHost: a\r\n\r\n",
            "\x16\x03\x01\x02",
        ],
    );
    assert_refused(
        505,
        [
            "GET / HTTP/1.2\r\n",
            "GET / HTTP/0.9\r\n",
            "GET / HTTP/2.0\r\n",
            "GET / HTTP/9.9\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    );
}

#[test]
fn targets_fit_the_method() {
    #[rustfmt::skip]
    let listed = [
        "/", "//", "/a?b=c&d", "/?", "/%2e%2e", "/a:b@c", "/[]|\\", "/?{}`^|\\", "http://a",
    ];
    for sound in listed {
        assert_eq!(head(&target(sound)).length, Some(0), "{sound}");
    }
    #[rustfmt::skip]
    let listed = [
        "HTTP://a/", "https://a:1/", "http://a?b", "http://[::1]:80/b", "http://a:/",
    ];
    for sound in listed {
        assert_eq!(head(&target(sound)).length, Some(0), "{sound}");
    }
    #[rustfmt::skip]
    let unsound = [
        "*", "a", "a/b", "a:80", "?a", "/a#b", "/#", "#", "/\u{e9}", "/\x7f", "/\x01", "/<",
        "/>", "http:/a", "http://", "http:///a", "http://u@a/", "http://u:p@a/", "http://a b/",
        "http://a:b/", "http://a:65536/", "http://a%41/", "http://[::1/", "ftp://a/", "ws://a/",
        "http://a/#", "*/", "http://a*/", "http://a,b/", "httpx://a/", "file:///a", "a@b",
    ];
    assert_refused(400, unsound.map(target));
    #[rustfmt::skip]
    let others = [
        "OPTIONS a HTTP/1.1", "OPTIONS ** HTTP/1.1", "OPTIONS *? HTTP/1.1", "CONNECT / HTTP/1.1",
        "CONNECT a HTTP/1.1", "CONNECT a: HTTP/1.1", "CONNECT * HTTP/1.1", "CONNECT :1 HTTP/1.1",
        "CONNECT http://a:1 HTTP/1.1", "CONNECT http://a:1/ HTTP/1.1", "CONNECT u@a:1 HTTP/1.1",
        "CONNECT a:1/ HTTP/1.1", "CONNECT a:65536 HTTP/1.1", "connect a:1 HTTP/1.1",
        "CONNECT a:1,b:1 HTTP/1.1",
    ];
    assert_refused(400, others.map(|line| format!("{line}\r\nHost: a\r\n\r\n")));
}

#[test]
fn hosts_are_one_and_well_formed() {
    #[rustfmt::skip]
    let listed = [
        "a", "A.b-c_d~", "a.", "a:", "a:0", "a:65535", "127.0.0.1:80", "[::1]", "[::1]:80",
        "[::]", "[::ffff:1.2.3.4]", "[1:2:3:4:5:6:7:8]:", "a \t",
    ];
    for sound in listed {
        assert_eq!(head(&host(sound)).length, Some(0), "{sound}");
    }
    #[rustfmt::skip]
    let unsound = [
        "", " ", "a b", "a/", "a/b", "u@a", "u:p@a", "a:b", "a:65536", "a:-1", "a:+1", "a: 80",
        "a:80:80", ":80", "[]", "[::1", "::1", "[::1]a", "[a]", "[::1%25eth0]", "[v1.a]", "a,b",
        "a, a", "a%41", "a%", "\u{e9}", "a?b", "a#b", "a\\b", "http://a", "a*", "a;b", "a'",
        "[1.2.3.4]",
    ];
    assert_refused(400, unsound.map(host));
    assert_refused(
        400,
        [
            get("Host: a\r\n"),
            get("host: b\r\n"),
            "GET / HTTP/1.1\r\n\r\n".into(),
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n".into(),
            "GET http://a/ HTTP/1.1\r\n\r\n".into(),
            "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".into(),
            "GET / HTTP/1.0\r\nHost:\r\n\r\n".into(),
        ],
    );
    assert!(head("GET / HTTP/1.0\r\n\r\n").http10);
}

#[test]
fn field_lines_have_one_spelling() {
    #[rustfmt::skip]
    let sound = [
        "X: \u{e9}\t\"#\r\n", "X:\r\n", "X: \r\n", "!#$%&'*+-.^_`|~09aZ:a\r\n", "a:\t:\r\n",
    ];
    for sound in sound {
        assert_eq!(head(&get(sound)).length, Some(0), "{sound}");
    }
    #[rustfmt::skip]
    let unsound = [
        "X : a\r\n", "X\t: a\r\n", ": a\r\n", "X\r\n", "X Y: a\r\n", "X(: a\r\n", "X/: a\r\n",
        "\u{e9}: a\r\n", "\"X\": a\r\n", "X: a\n", "X: a\r", "X: a\rY: b\r\n", "X: a\0\r\n",
        "X: \x0b\r\n", "X: \x7f\r\n", "X\0: a\r\n", "X: a\r\n b\r\n", "X: a\r\n\tb\r\n",
        "X: a\r\n \r\n", "X: a\r\n\n", "X: a\r\r\n", "X@: a\r\n", "X[: a\r\n", "X=: a\r\n",
        "X,Y: a\r\n", "{: a\r\n",
    ];
    assert_refused(400, unsound.map(get));
    assert_refused(400, ["GET / HTTP/1.1\r\n Host: a\r\n\r\n", "GET / HTTP/1.1\r\n\tX: a\r\n"]);
    // A folded line is no token either; its reason should say what it is.
    let folded = refusal(get("X: a\r\n b\r\n").as_bytes()).map(|refusal| refusal.reason);
    assert!(folded.is_some_and(|reason| reason.contains("folded")));
    for byte in (0..=u8::MAX).filter(|b| b.is_ascii_control() && *b != b'\t') {
        let mut raw = b"GET / HTTP/1.1\r\nHost: a\r\nX: a".to_vec();
        raw.extend_from_slice(&[byte, b'b', b'\r', b'\n', b'\r', b'\n']);
        assert_refused(400, [raw]);
    }
}

#[test]
fn lengths_are_one_number() {
    for (sound, length) in [
        ("0", 0),
        ("5", 5),
        ("005", 5),
        (" \t5 \t", 5),
        ("9223372036854775807", i64::MAX as u64),
        ("0000000000000000005", 5),
    ] {
        let head = head(&get(&format!("Content-Length:{sound}\r\n")));
        assert_eq!(head.length, Some(length), "{sound}");
    }
    #[rustfmt::skip]
    let unsound = [
        "", "+5", "-5", "-0", "0x5", "1_0", "5,5", "5, 5", "5,", ",5", "5 5", "5\x0b", "5.0",
        "1e1", "a", "\"5\"", "5;", "9223372036854775808", "18446744073709551615",
        "18446744073709551616", "18446744073709551621", "99999999999999999999999", "\u{0665}",
        "5\0", "\r\n 5",
    ];
    assert_refused(400, unsound.map(|value| get(&format!("Content-Length: {value}\r\n"))));
    assert_refused(
        400,
        [
            get("Content-Length: 5\r\nContent-Length: 5\r\n"),
            get("Content-Length: 5\r\ncontent-length: 6\r\n"),
            get("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            get("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
            get("Transfer-Encoding: gzip\r\nContent-Length: 5\r\n"),
            get("Content-Length : 5\r\n"),
        ],
    );
}

#[test]
fn transfer_codings_are_chunked_or_nothing() {
    for sound in ["chunked", "Chunked", "CHUNKED", " chunked \t"] {
        let head = head(&get(&format!("Transfer-Encoding:{sound}\r\n")));
        assert_eq!(head.length, None, "{sound}");
    }
    // It names what to keep from the next hop; it frames nothing.
    let head = head(&get("Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n"));
    assert_eq!(head.length, None);
    #[rustfmt::skip]
    let unsound = [
        "", ",", ",chunked", "chunked,", "chunked, chunked", "chunked chunked", "chunked, gzip",
        "gzip, chunked, chunked", "gzip,,chunked", "chunke", "xchunked", "chunkedx", "x-chunked",
        "identity", "chunked;a=b", "chunked;", "\"chunked\"", "'chunked'", "\x0bchunked",
        "chunked\x0b", "chunked\0", "\u{212a}chunked", "identity, chunked", "gzip;q=1",
        "chun\r\n ked", "=chunked", "\\chunked", "chunked\u{a0}",
    ];
    assert_refused(400, unsound.map(|value| get(&format!("Transfer-Encoding: {value}\r\n"))));
    assert_refused(
        400,
        [
            get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            get("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
            get("Transfer-Encoding : chunked\r\n"),
            get("X: a\r\n Transfer-Encoding: chunked\r\n"),
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            "POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n".into(),
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".into(),
        ],
    );
    #[rustfmt::skip]
    let others = [
        "gzip", "GZIP", "x-gzip", "deflate", "compress", "gzip, chunked", "gzip , deflate",
    ];
    assert_refused(501, others.map(|value| get(&format!("Transfer-Encoding: {value}\r\n"))));
}

#[test]
fn heads_say_what_follows() {
    for (fields, expect) in [
        ("Expect: 100-continue\r\nContent-Length: 5\r\n", true),
        ("expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n", true),
        ("Expect: 100-continue\r\nContent-Length: 0\r\n", false),
    ] {
        assert_eq!(head(&get(fields)).expect_continue, expect, "{fields}");
    }
    // As streaming encoders send it: passed on as empty, the body would be lost.
    assert_refused(411, [get("Expect: 100-continue\r\n")]);
    for old in ["Content-Length: 5\r\n", ""] {
        let old = head(&format!("PUT / HTTP/1.0\r\nExpect: 100-continue\r\n{old}\r\n"));
        assert!(!old.expect_continue);
    }
    #[rustfmt::skip]
    let others = [
        "", "100", "200-ok", "100-continue, x", "100-continue\r\nExpect: 100-continue",
    ];
    assert_refused(417, others.map(|value| get(&format!("Expect: {value}\r\n"))));

    for (fields, upgrade) in [
        ("Upgrade: websocket\r\nConnection: Upgrade\r\n", true),
        ("Connection: keep-alive , UPGRADE\r\nUpgrade: a/1\r\n", true),
        ("Connection: close\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n", true),
        ("Upgrade: websocket\r\n", false),
        ("Connection: upgrade\r\n", false),
        ("Connection: xupgrade\r\nUpgrade: websocket\r\n", false),
        ("Connection: upgrade\r\nUpgrade:\r\n", false),
        ("Connection: upgrade\r\nUpgrade: H2C\r\n", false),
        ("Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", true),
    ] {
        assert_eq!(head(&get(fields)).upgrade, upgrade, "{fields}");
    }
    assert!(!head("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").upgrade);
}
