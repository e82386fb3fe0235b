//! `2ptth-client replay`: sends saved requests again, for tests that run unattended.
//!
//! In:  a HAR file, or a folder with what `--capture` wrote, in the order of the names.
//! Out: a line a request, and an exit code that says whether each got the status that was expected.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use argh::{ArgsInfo, FromArgs};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use ptth_link::body::Body;
use ptth_link::cli;
use ptth_link::h1::RequestReader;
use ptth_link::lock::Mutex;
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::replay::ask;
use super::store::MASK;
use crate::config::{OriginAddress, OriginOptions};
use crate::origin::Origin;
use crate::watch::{Event, Hears};

/// Sends requests of a HAR file, or of a folder that --capture wrote, to an origin, and ends with 0 if each gets the
/// status that is expected.
#[derive(ArgsInfo, FromArgs)]
#[argh(
    help_triggers("-h", "--help"),
    usage = "replay FILE.har|DIR --to ORIGIN [--expect-status 2xx]"
)]
struct Args {
    /// the web server to ask: `8080`, `host:port`, `http://…`, `https://…` or `unix:/path`
    #[argh(option, arg_name = "origin")]
    to: String,

    /// the status that each response must have: `200`, or a class like `2xx` (default 2xx)
    #[argh(option, arg_name = "status", default = "\"2xx\".to_owned()")]
    expect_status: String,

    /// the file or the folder
    #[argh(positional, arg_name = "FILE.har|DIR")]
    from: String,
}

/// The exit code of this process, if its first argument is `replay`.
pub fn command(program: &str) -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1).map(OsString::into_string);
    arguments.next()?.ok().filter(|word| word == "replay")?;
    let Ok(arguments) = arguments.collect::<Result<Vec<_>, _>>() else {
        return Some(cli::fail(program, &"an argument isn't UTF-8 text"));
    };
    Some(match cli::read::<Args>(program, arguments) {
        Ok(args) => run(&args).unwrap_or_else(|why| cli::fail(program, &why)),
        Err(code) => code,
    })
}

fn run(args: &Args) -> Result<ExitCode, String> {
    let expected = args.expect_status.as_str();
    let digits = expected.strip_suffix("xx").unwrap_or(expected);
    let fits = if digits == expected { 3 } else { 1 };
    if digits.len() != fits || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("--expect-status {expected:?} must be like `200` or `2xx`"));
    }
    let address = OriginAddress::parse(&args.to).map_err(|why| format!("--to: {why}"))?;
    let origin = Origin::new(address, &OriginOptions::default()).map_err(|why| why.to_string())?;
    let requests = load(Path::new(&args.from))?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|err| err.to_string())?;
    let (mut failed, mut said) = (0, Vec::new());
    for request in requests {
        let line = format!("{} {}", request.method(), request.uri());
        let got = Arc::<Got>::default();
        let asking = ask(origin.clone(), request, got.clone());
        let late = runtime.block_on(async { timeout(PATIENCE, asking).await.is_err() });
        let got = got.0.lock();
        let text = got.0.map_or("none".to_owned(), |status| status.as_u16().to_string());
        let fine = text.starts_with(digits) && got.1.is_none() && !late;
        failed += usize::from(!fine);
        let why = if late { Some("no end within a minute") } else { got.1.as_deref() };
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        said.push(format!("{} {line} {text}{why}", if fine { "ok  " } else { "FAIL" }));
    }
    said.push(format!("{} requests, {failed} failed", said.len()));
    Ok(match failed {
        0 => cli::say(&said.join("\n")),
        _ => {
            cli::say(&said.join("\n"));
            ExitCode::FAILURE
        }
    })
}

/// The status of a response, and why it failed.
#[derive(Debug, Default)]
struct Got(Mutex<(Option<StatusCode>, Option<String>)>);

impl Hears for Got {
    fn hear(&self, event: Event<'_>) {
        let mut got = self.0.lock();
        match event {
            Event::Head(head) => got.0 = Some(head.status),
            Event::Ended(status, why) => *got = (status.or(got.0), why.map(str::to_owned)),
            Event::Body(..) | Event::Informational(..) => {}
        }
    }
}

fn load(from: &Path) -> Result<Vec<Request<Body>>, String> {
    let told = |path: &Path, why: &dyn std::fmt::Display| format!("{} {why}", path.display());
    let unread = |path: &Path, err| told(path, &format!("can't be read: {err}"));
    if !from.is_dir() {
        let text = fs::read(from).map_err(|err| unread(from, err))?;
        let har = serde_json::from_slice::<Value>(&text);
        let har = har.map_err(|err| told(from, &format!("is no HAR file: {err}")))?;
        let entries = har["log"]["entries"].as_array();
        let entries = entries.ok_or_else(|| told(from, &"is no HAR file: it has no entries"))?;
        return entries.iter().map(entry).collect();
    }
    let folder = fs::read_dir(from).map_err(|err| unread(from, err))?;
    let mut paths: Vec<_> = folder.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "http"));
    paths.sort();
    let one = |path: &std::path::PathBuf| {
        let bytes = fs::read(path).map_err(|err| unread(path, err))?;
        captured(&bytes).ok_or_else(|| told(path, &"holds no request"))
    };
    paths.iter().map(one).collect()
}

/// A request as `--capture` writes it.
fn captured(bytes: &[u8]) -> Option<Request<Body>> {
    let mut input = BytesMut::from(bytes);
    let mut request = RequestReader::default().read(&mut input).ok()??;
    let host = request.parts.headers.get(HOST)?.clone();
    // Removing one would change the order of the others.
    let others = request.parts.headers.iter().filter(|(name, _)| *name != HOST);
    request.parts.headers = others.map(|(name, value)| (name.clone(), value.clone())).collect();
    let target = request.parts.uri.path_and_query()?.clone();
    let uri = Uri::builder().scheme("https").authority(host.as_bytes()).path_and_query(target);
    request.parts.uri = uri.build().ok()?;
    let whole = request.head.length.is_some_and(|length| length == input.len() as u64);
    whole.then(|| Request::from_parts(*request.parts, Body::full(input.freeze())))
}

/// A request of a HAR file. Fields that were masked there are left out.
fn entry(entry: &Value) -> Result<Request<Body>, String> {
    let asked = &entry["request"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (method, url) = (text(&asked["method"]), text(&asked["url"]));
    let wrong = || format!("{method} {url} in the HAR file is no request");
    let content = &asked["postData"];
    let body = match (content["text"].as_str(), content["encoding"].as_str()) {
        (Some(text), Some("base64")) => STANDARD.decode(text).map_err(|_| wrong())?,
        (text, _) => text.unwrap_or_default().as_bytes().to_vec(),
    };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| wrong())?;
    *request.uri_mut() = url.parse().map_err(|_| wrong())?;
    for field in asked["headers"].as_array().into_iter().flatten() {
        let (name, value) = (text(&field["name"]), text(&field["value"]));
        // A browser's file has HTTP/2's own fields among them.
        if value == MASK || name.starts_with(':') || name.eq_ignore_ascii_case("host") {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        request.headers_mut().append(name, HeaderValue::from_str(&value).map_err(|_| wrong())?);
    }
    if !body.is_empty() || request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    }
    Ok(request.map(|_| Body::full(Bytes::from(body))))
}

const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_captured_request_has_its_whole_body() {
        let head = "POST /a?b HTTP/1.1\r\nhost: a.test\r\nx: y\r\ncontent-length: 3\r\n\r\n";
        let request = captured(format!("{head}abc").as_bytes()).unwrap();
        assert_eq!(request.uri(), "https://a.test/a?b");
        assert_eq!(request.headers().len(), 2);
        for bad in
            [format!("{head}ab"), format!("{head}abcd"), "GET / HTTP/1.1\r\n".into(), String::new()]
        {
            assert!(captured(bad.as_bytes()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_request_of_a_har_file_leaves_out_what_is_masked() {
        let fields = [
            (":authority", "a.test"),
            ("Host", "a.test"),
            ("cookie", MASK),
            ("x", "1"),
            ("x", "2"),
        ];
        let fields = fields.map(|(name, value)| json!({ "name": name, "value": value }));
        let har = json!({ "request": { "method": "PUT", "url": "https://a.test/b", "headers": fields,
            "postData": { "text": "AP8=", "encoding": "base64" } } });
        let request = entry(&har).unwrap();
        assert_eq!(request.headers().get_all("x").iter().count(), 2);
        assert_eq!(request.headers()[CONTENT_LENGTH], "2");
        assert_eq!(request.headers().len(), 3);
        for bad in [json!({}), json!({ "request": { "method": "a b", "url": "https://a.test/" } })]
        {
            assert!(entry(&bad).is_err());
        }
    }
}
