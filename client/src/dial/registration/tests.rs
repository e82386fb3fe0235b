//! What is asked at a door, and what its answers mean.

use http::Response;

use super::*;
use crate::config::Gateway;

fn config(gateway: &str) -> Config {
    Config::new(Gateway::parse(gateway).unwrap())
}

#[test]
fn the_request_asks_for_all_or_for_one_origin() {
    let table = [
        ("example.com", None, "/.well-known/ptth/https%3A%2F%2Fexample.com/", "example.com"),
        (
            "example.com:8443",
            None,
            "/.well-known/ptth/https%3A%2F%2Fexample.com%3A8443/",
            "example.com:8443",
        ),
        (
            "example.com",
            Some("blog.example.com"),
            "/.well-known/ptth/https%3A%2F%2Fblog.example.com/",
            "blog.example.com",
        ),
        (
            "[::1]:8443",
            Some("::1"),
            "/.well-known/ptth/https%3A%2F%2F%5B%3A%3A1%5D%3A8443/",
            "[::1]:8443",
        ),
    ];
    let value = Value::parse("secret").unwrap();
    for (gateway, asked, path, authority) in table {
        let mut config = config(gateway);
        config.asked_host = asked.map(str::to_owned);
        config.host = asked.map_or(config.host.clone(), str::to_owned);
        config.name = Some("bob".into());
        let h1 = request(&config, "laptop-1.0", Some(&value));
        config.via = Via::Connect;
        let h2 = request(&config, "laptop-1.0", Some(&value));
        assert_eq!((h1.uri().to_string().as_str(), h1.method()), (path, &Method::GET));
        assert_eq!(h1.headers()["host"], authority);
        assert_eq!(
            (&h1.headers()["upgrade"], &h1.headers()["connection"]),
            (&"ptth".parse().unwrap(), &"upgrade".parse().unwrap())
        );
        assert_eq!((h2.uri().path(), h2.method()), (path, &Method::CONNECT));
        assert_eq!(h2.uri().authority().unwrap(), authority);
        assert_eq!(h2.uri().scheme_str(), Some("https"));
        assert_eq!(h2.extensions().get::<Protocol>().unwrap().as_str(), "ptth");
        for fields in [h1.headers(), h2.headers()] {
            assert_eq!(fields["alpn"], "h2");
            assert_eq!(fields["2ptth-name"], "bob");
            assert_eq!(fields["2ptth-instance"], "laptop-1.0");
            assert_eq!(fields["authorization"], "Bearer secret");
            assert!(!format!("{fields:?}").contains("secret"), "{fields:?}");
        }
    }
    let config = config("example.com");
    let bare = request(&config, "x.0", None);
    assert!(!bare.headers().contains_key("authorization"));
    // All that there is, which a gateway of another kind is told by its own origin.
    assert_eq!(bare.headers()["2ptth-name"], "*");
    assert!(!bare.headers().contains_key("2ptth-path"));
    let mut config = config;
    (config.asked_host, config.path) = (Some("a.test".to_owned()), Some("/x".to_owned()));
    let one = request(&config, "x.0", None);
    assert!(!one.headers().contains_key("2ptth-name"));
    assert_eq!(one.headers()["2ptth-path"], "/x");
}

fn answer(version: http::Version, status: u16, fields: &[(&str, &str)]) -> Parts {
    let mut response = Response::builder().version(version).status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap().into_parts().0
}

const H1: http::Version = http::Version::HTTP_11;
const H2: http::Version = http::Version::HTTP_2;

#[test]
fn only_the_right_answer_opens_the_door() {
    let url = "https://a.example/";
    let opened: [(_, _, &[(&str, &str)]); 4] = [
        (H1, 101, &[("upgrade", "ptth"), ("alpn", "h2"), ("2ptth-url", url)]),
        (H1, 101, &[("upgrade", "PTTH"), ("2ptth-url", url)]),
        (H2, 200, &[("alpn", "h2"), ("2ptth-url", url), ("2ptth-url", "javascript:x")]),
        (H2, 204, &[("2ptth-url", url), ("2ptth-url", "https://a b/")]),
    ];
    for (version, status, fields) in opened {
        let news = judge(&answer(version, status, fields), b"").unwrap();
        assert_eq!(news.urls, [url], "{fields:?}");
    }
    let closed: [(_, _, &[(&str, &str)]); 7] = [
        (H1, 101, &[("upgrade", "websocket")]),
        (H1, 101, &[("upgrade", "PTTH/1.0")]),
        (H1, 101, &[("upgrade", "ptth"), ("upgrade", "websocket")]),
        (H1, 101, &[("upgrade", "ptth"), ("alpn", "h3")]),
        (H1, 200, &[("upgrade", "ptth")]),
        (H2, 200, &[("alpn", "http%2F1.1")]),
        (H2, 302, &[]),
    ];
    for (version, status, fields) in closed {
        let err = judge(&answer(version, status, fields), b"").unwrap_err();
        assert_eq!(err.verdict(), Verdict::FinalAtFirst, "{fields:?} {err}");
    }
}

#[test]
fn each_refusal_says_what_to_do() {
    let after = |seconds| Verdict::Later(Duration::from_secs(seconds));
    let table: [(u16, Option<&str>, Verdict); 18] = [
        (400, None, Verdict::FinalAtFirst),
        (401, None, Verdict::FinalAtFirst),
        (403, None, Verdict::FinalAtFirst),
        (409, None, Verdict::FinalAtFirst),
        (404, None, Verdict::FinalAtFirst),
        (405, None, Verdict::FinalAtFirst),
        (426, None, Verdict::FinalAtFirst),
        (301, None, Verdict::FinalAtFirst),
        (501, None, Verdict::FinalAtFirst),
        (429, Some("7"), after(7)),
        (429, Some("Fri, 31 Dec 1999 23:59:59 GMT"), Verdict::Failed),
        (429, None, Verdict::Failed),
        (503, Some("9999999999999999999999"), after(60)),
        (503, Some("+5"), Verdict::Absent),
        (503, None, Verdict::Absent),
        (502, Some("5"), Verdict::Absent),
        (522, None, Verdict::Absent),
        (500, None, Verdict::Failed),
    ];
    for (status, retry, verdict) in table {
        for version in [H1, H2] {
            let fields: Vec<_> = retry.map(|retry| ("retry-after", retry)).into_iter().collect();
            let err = judge(&answer(version, status, &fields), b"").unwrap_err();
            assert_eq!(err.verdict(), verdict, "{status} {retry:?}: {err}");
            assert!(err.to_string().contains(&status.to_string()), "{err}");
        }
    }
    // In the gateway's own words: a front has none.
    for (status, verdict) in [(400, Verdict::Final), (401, Verdict::Final), (403, Verdict::Final)]
        .into_iter()
        .chain([(409, Verdict::Final), (404, Verdict::FinalAtFirst), (502, Verdict::Absent)])
    {
        let err = judge(&answer(H1, status, &[("2ptth-reason", "no")]), b"").unwrap_err();
        assert_eq!(err.verdict(), verdict, "{status}: {err}");
    }
}

#[test]
fn the_reason_is_printed_quoted_and_short() {
    let said = |fields: &[(&str, &str)], body: &[u8]| {
        judge(&answer(H1, 403, fields), body).unwrap_err().to_string()
    };
    let head = "the gateway refuses this client: 403 Forbidden";
    assert_eq!(said(&[], b""), head);
    let field = [("2ptth-reason", "not your origin")];
    assert_eq!(said(&field, b"a page"), format!("{head}, \"not your origin\""));
    assert_eq!(said(&[], b"\r\n  not yours\r\nmore"), format!("{head}, \"not yours\""));
    let page = said(&[], b"\x1b[2J\xff evil");
    assert!(page.contains("\\u{1b}[2J") && !page.contains('\x1b'), "{page}");
    let long = said(&[], &[b'x'; 5000]);
    assert_eq!(long.len(), head.len() + 4 + LONGEST_REASON);
}
