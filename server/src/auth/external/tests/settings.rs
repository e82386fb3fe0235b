//! How an authorizer's URL and the time that it may take are written.

use super::*;

#[test]
fn times_are_written_in_several_ways() {
    let read = |value: Value| SECONDS.deserialize(value);
    let millis = |n| Duration::from_millis(n);
    for (value, expected) in [
        (json!("5s"), millis(5000)),
        (json!(" 0.5 s "), millis(500)),
        (json!("250ms"), millis(250)),
        (json!("1m"), millis(60_000)),
        (json!("7"), millis(7000)),
        (json!(7), millis(7000)),
        (json!(1.5), millis(1500)),
    ] {
        assert_eq!(read(value.clone()).unwrap(), expected, "{value}");
    }
    for bad in [
        json!("0s"),
        json!(0),
        json!(-1),
        json!("61s"),
        json!("2m"),
        json!("1h"),
        json!("s"),
        json!(""),
        json!("é"),
        json!("1e1s"),
        json!("+5s"),
        json!(1e300),
        json!("1.2.3s"),
    ] {
        let error = read(bad.clone()).unwrap_err().to_string();
        assert!(error.contains("up to 60 seconds"), "{bad}: {error}");
    }
}

#[test]
fn a_url_is_taken_apart() {
    let table = [
        ("https://a.example", "https://a.example:443", "a.example", "/"),
        ("http://a.example/x?key=1", "http://a.example:80", "a.example", "/x?key=1"),
        ("HTTPS://a.example:8443/", "https://a.example:8443", "a.example:8443", "/"),
        ("http://[::1]:80/x", "http://[::1]:80", "[::1]:80", "/x"),
        ("https://127.0.0.1?x", "https://127.0.0.1:443", "127.0.0.1", "/?x"),
        ("https://a.example/x#y", "https://a.example:443", "a.example", "/x"),
    ];
    for (url, shown, authority, target) in table {
        let (server, question) = Server::read(url.as_bytes()).unwrap();
        assert_eq!(server.to_string(), shown, "{url}");
        assert_eq!(question.headers()["host"], authority, "{url}");
        assert_eq!(question.uri().to_string(), target, "{url}");
    }
    for bad in [
        "",
        "/",
        "a.example",
        "a.example/x",
        "ftp://a.example",
        "//a.example",
        "https://",
        "https:///x",
        "https://:443/",
        "https://a.example:",
        "https://a.example:x",
        "https://a.example:65536",
        "https://user@a.example",
        "https://u:p@a.example",
        "https://a b",
        "https://a.example/ x",
        "https://*/",
        "https://[::g]/",
        "https://é/",
    ] {
        assert!(Server::read(bad.as_bytes()).is_none(), "{bad}");
    }
}
