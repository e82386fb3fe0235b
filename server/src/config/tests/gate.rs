//! The gate of a route: what the file and the flags say of it, and what is wrong with them.

use std::time::Duration;

use super::file::{load, private, scratch};
use super::*;

fn gate(text: &str) -> Gate {
    let config = load(&scratch(), format!("[[route]]\n{text}"), "--self-signed", &[]);
    let config = config.unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    config.routes.into_iter().next().and_then(|route| route.gate).expect("a gate")
}

#[test]
fn each_key_of_a_gate_is_read() {
    let gate = gate(
        "[route.gate]\nallow = ['10.0.0.0/8', '::1']\ndeny = '10.1.2.3'\nmax_body = '3GiB'\n\
         rate = { requests = 20, per = '2s', burst = 40 }\n\
         basic = { user = 'team', password_file = 'secret' }\n\
         request_headers = { set = { X-Env = 'staging', x_y = '1' }, remove = ['X-Internal'] }\n\
         response_headers = { remove = 'server' }\n\
         forward = { url = 'http://127.0.0.1:4180/auth?t=1', timeout = '3s', copy = ['X-User', 'x-forwarded-user'] }",
    );
    assert_eq!(gate.allow.unwrap().len(), 2);
    assert_eq!(gate.deny, ["10.1.2.3/32".parse().unwrap()]);
    assert_eq!(gate.max_body, Some(3 << 30));
    assert_eq!(gate.rate, Some(Rate { interval: Duration::from_millis(100), burst: 40 }));
    let basic = gate.basic.unwrap();
    assert!(basic[0].password.is(b"s3cret-of-somebody") && !basic[0].password.is(b"s3cret"));
    let set: Vec<_> =
        gate.request_headers.set.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
    assert_eq!(set, [("x-env", "staging"), ("x-y", "1")]);
    assert_eq!(gate.request_headers.remove, ["x-internal"]);
    assert_eq!(gate.response_headers.remove, ["server"]);
    let forward = gate.forward.unwrap();
    assert_eq!((forward.timeout.as_secs(), forward.copy.len()), (3, 2));
    assert_eq!(forward.question.uri(), "/auth?t=1");
    assert!(!format!("{forward:?}{basic:?}").contains("t=1"));
}

#[test]
fn gates_are_the_same_if_their_settings_are() {
    let text = "[route.gate]\nbasic = { user = 'a', password_file = 'secret' }\nforward = { url = 'http://127.0.0.1/' }";
    assert_eq!(gate(text), gate(text));
    for (part, other) in [("'secret'", "'other'"), ("'a'", "'b'"), ("127.0.0.1/", "127.0.0.1/x")] {
        assert_ne!(gate(text), gate(&text.replace(part, other)), "{other}");
    }
}

#[test]
fn a_gate_by_flags_is_for_a_gateway_without_routes() {
    let scratch = scratch();
    private(&scratch.write("users", "# us\nann:open sesame\n"));
    let line = format!(
        "--gate-basic-file {} --gate-deny 10.0.0.1 --gate-rate 20/1s",
        scratch.0.join("users").display()
    );
    let gate = ok(&line, &[]).gate.unwrap();
    assert!(gate.basic.unwrap()[0].password.is(b"open sesame"));
    assert_eq!(gate.rate, Some(Rate { interval: Duration::from_millis(50), burst: 20 }));
    let file = load(&scratch, "gate-basic-file = 'users'", "--self-signed", &[]).unwrap();
    assert!(file.gate.unwrap().basic.is_some(), "relative to the file");
    // Another content is another configuration.
    private(&scratch.write("users", "ann:other\n"));
    let changed = load(&scratch, "gate-basic-file = 'users'", "--self-signed", &[]).unwrap();
    assert_ne!(changed.digest, file.digest);
    let text = "gate_deny = '10.0.0.1'\n[[route]]\nhosts = 'a'";
    let error = load(&scratch, text, "--self-signed", &[]).unwrap_err().to_string();
    assert!(error.contains(".toml:1:13: gate_deny is for a gateway without routes"), "{error}");
    let error = read("--self-signed --gate-deny x", &[]).unwrap_err().to_string();
    assert!(error.starts_with("--gate-deny \"x\" must be an address or a network"), "{error}");
    let error = read("--self-signed", &[("GATE_ALLOW", " ")]).unwrap_err().to_string();
    assert!(error.contains("GATE_ALLOW is set but empty"), "{error}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_mistake_in_a_gate_is_told_with_its_line_and_column() {
    let table = [
        ("gate = 5", "2:8", "`gate` takes a table"),
        ("[route.gate]\nallowed = '::1'", "3:1", "`allowed` isn't a key of [route.gate]"),
        ("[route.gate]\nallow = []", "3:9", "`allow` is empty"),
        (
            "[route.gate]\ndeny = ['::1', '10.0.0.0/33']",
            "3:16",
            "\"10.0.0.0/33\" must be an address",
        ),
        ("[route.gate]\nmax_body = '10 apples'", "3:12", "must be a size"),
        ("[route.gate]\nmax_body = '99999999999GiB'", "3:12", "must be a size"),
        ("[route.gate]\nrate = '20'", "3:8", "must be a number in a time, like \"20/1s\""),
        ("[route.gate]\nrate = '0/1s'", "3:8", "must be a number in a time"),
        ("[route.gate]\nrate = '20/0s'", "3:8", "must be a number in a time"),
        ("[route.gate]\nrate = '5000000000/1s'", "3:8", "can't be counted"),
        (
            "[route.gate]\nrate = { requests = 1, per = '365d', burst = 2 }",
            "3:8",
            "can't be counted",
        ),
        ("[route.gate]\nrate = { per = '1s' }", "3:8", "`rate` needs `requests`"),
        ("[route.gate]\nrate = { requests = 1, brust = 2 }", "3:24", "`brust`"),
        ("[route.gate]\nbasic = {}", "3:9", "`basic` needs `user` and `password_file`, or"),
        ("[route.gate]\nbasic = { user = 'a' }", "3:9", "`basic` needs"),
        (
            "[route.gate]\nbasic = { user = 'a:b', password_file = 'secret' }",
            "3:18",
            "must have a user without a colon",
        ),
        (
            "[route.gate]\nbasic = { user = 'a', password_file = 'none' }",
            "3:39",
            "none can't be read",
        ),
        ("[route.gate]\nbasic = { user = 'a', password_file = 'void' }", "3:39", "void is empty"),
        ("[route.gate]\nbasic = { htpasswd_file = 'void' }", "3:27", "void has no user"),
        (
            "[route.gate]\nbasic = { htpasswd_file = 'weak' }",
            "3:27",
            "weak line 2 has a hash of a kind",
        ),
        (
            "[route.gate]\nbasic = { htpasswd_file = 'sha' }",
            "3:27",
            "sha line 1 has a hash of a kind",
        ),
        (
            "[route.gate]\nbasic = { htpasswd_file = 'dear' }",
            "3:27",
            "dear line 1 has a bcrypt hash of a cost",
        ),
        (
            "[route.gate]\nbasic = { htpasswd_file = 'cut' }",
            "3:27",
            "cut line 1 has a malformed argon2",
        ),
        (
            "[route.gate]\nbasic = { htpasswd_file = 'secret' }",
            "3:27",
            "line 1 must be `user:password`",
        ),
        (
            "[route.gate]\nrequest_headers = { set = { host = 'x' } }",
            "3:36",
            "the field host frames or",
        ),
        (
            "[route.gate]\nrequest_headers = { set = { x-forwarded-for = 'x' } }",
            "3:47",
            "x-forwarded-for",
        ),
        ("[route.gate]\nrequest_headers = { set = { \"2ptth-url\" = 'x' } }", "3:43", "2ptth-url"),
        (
            "[route.gate]\nrequest_headers = { set = { 'a b' = 'x' } }",
            "3:37",
            "must be the name of a header",
        ),
        (
            "[route.gate]\nrequest_headers = { set = { x-a = \"b\\r\\nhost: evil\" } }",
            "3:35",
            "a field's value is visible ASCII, in one line",
        ),
        (
            "[route.gate]\nrequest_headers = { set = { x-a = \"b\\u0000\" } }",
            "3:35",
            "visible ASCII",
        ),
        ("[route.gate]\nrequest_headers = { set = 5 }", "3:27", "`set` takes a table"),
        ("[route.gate]\nrequest_headers = { add = {} }", "3:21", "`add`"),
        (
            "[route.gate]\nresponse_headers = { remove = ['Connection'] }",
            "3:32",
            "the field connection",
        ),
        (
            "[route.gate]\nresponse_headers = { remove = ['content-length'] }",
            "3:32",
            "content-length",
        ),
        ("[route.gate]\nforward = {}", "3:11", "`forward` needs `url`"),
        ("[route.gate]\nforward = { url = 'ftp://a/' }", "3:19", "`url` must be like"),
        ("[route.gate]\nforward = { url = 'http://u:p@127.0.0.1/' }", "3:19", "`url` must be like"),
        ("[route.gate]\nforward = { url = 'http://8.8.8.8/' }", "3:19", "`allow_plain = true`"),
        ("[route.gate]\nforward = { url = 'https://a/', ca = 'secret' }", "3:38", "secret"),
        (
            "[route.gate]\nforward = { url = 'http://127.0.0.1/', copy = 'via' }",
            "3:47",
            "the field via",
        ),
        (
            "[route.gate]\nforward = { url = 'http://127.0.0.1/', timeout = 0 }",
            "3:50",
            "must be a time",
        ),
        ("max_streams = 0", "2:15", "max_streams \"0\" must be a number from 1"),
        ("rate_bytes = '1KiB'", "2:14", "rate_bytes \"1KiB\" must be a size a second"),
        ("max_tunnels = 'x'", "2:15", "max_tunnels \"x\" must be a number from 1"),
    ];
    let scratch = scratch();
    let dear = "$2y$17$8OKOjn.QuO/MzIVn9QdZ9eZ/oS2EYdWPXB1JE1SxKVLt4ji7wacL.";
    for (name, text) in [
        ("void", "\n# nobody\n".to_owned()),
        ("weak", "a:b\nc:$apr1$2Xk9A$hunter2hunter2".to_owned()),
        ("sha", "a:{SHA}hunter2hunter2".to_owned()),
        ("dear", format!("a:{dear}")),
        ("cut", "a:$argon2id$v=19$m=32,t=1,p=1$hunter2hunter2".to_owned()),
    ] {
        private(&scratch.write(name, text));
    }
    private(&scratch.write("void", "\n"));
    let mut wrong = Vec::new();
    for (text, place, part) in table {
        let text = format!("[[route]]\n{text}");
        let error = load(&scratch, &text, "--self-signed", &[]).expect_err(&text).to_string();
        let rest = error.split_once(".toml:").unwrap_or_default().1;
        if !rest.starts_with(&format!("{place}: ")) || !rest.contains(part) {
            wrong.push(format!("{text}: {place} {part:?} isn't in {error:?}"));
        }
        assert!(!error.contains("hunter2") && !error.contains(dear), "{error}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
