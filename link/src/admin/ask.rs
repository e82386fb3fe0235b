//! `ready` and `status`: a program asks the running one of its kind, so that a probe needs no other program.

use std::ffi::OsString;
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, io};

use argh::{ArgsInfo, FromArgs};
use bytes::BytesMut;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::time::timeout;

use super::Address;
use crate::h1::{self, ResponseReader};
use crate::{cli, settings};

/// Asks a running program by its admin address: `ready` ends with 0 if it can serve, and `status` says what it does.
#[derive(ArgsInfo, FromArgs)]
#[argh(help_triggers("-h", "--help"), usage = "ready|status [options]")]
struct Args {
    /// where the program answers, as its own --admin says (ADMIN)
    #[argh(option, arg_name = "addr")]
    admin: Option<String>,

    /// ask `ready` about this route alone
    #[argh(option, arg_name = "name")]
    route: Option<String>,

    /// print the answer as it comes, JSON
    #[argh(switch)]
    json: bool,
}

/// The exit code of this process, if its first argument is `ready` or `status`: it was asked, and the answer printed.
pub fn command(program: &str) -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1).map(OsString::into_string);
    let word =
        arguments.next()?.ok().filter(|word| ["ready", "status"].contains(&word.as_str()))?;
    let Ok(arguments) = arguments.collect::<Result<Vec<_>, _>>() else {
        return Some(cli::fail(program, &"an argument isn't UTF-8 text"));
    };
    Some(match cli::read::<Args>(program, arguments) {
        Ok(args) => run(program, &word, args),
        Err(code) => code,
    })
}

fn run(program: &str, word: &str, args: Args) -> ExitCode {
    let given =
        args.admin.or_else(|| settings::variable(&|it| env::var_os(it), "ADMIN", false).ok()?);
    let Some(given) = given else {
        let why =
            "say where the running program answers: --admin ADDR (ADMIN), as it was given itself";
        return cli::fail(program, &why);
    };
    let Ok(address) = Address::PARSER.parse(&given) else {
        return cli::fail(
            program,
            &format!("--admin (ADMIN) {given:?} must be {}", Address::PARSER.0),
        );
    };
    let target = match (word, args.route) {
        ("ready", Some(route)) => {
            format!("/readyz?route={}", utf8_percent_encode(&route, NON_ALPHANUMERIC))
        }
        ("ready", None) => "/readyz".to_owned(),
        _ => "/status".to_owned(),
    };
    match ask(&address, &target) {
        Err(err) => cli::fail(program, &format!("{address} doesn't answer: {err}")),
        Ok((status, body)) => {
            let parsed = serde_json::from_str(&body).ok().filter(|_| !args.json);
            cli::say(&parsed.map_or(body, |value: Value| rendered(&value)));
            if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

/// The status and the body of the response to a GET. Blocks, for [`PATIENCE`] at most.
fn ask(address: &Address, target: &str) -> io::Result<(StatusCode, String)> {
    let uri = Uri::try_from(target).map_err(io::Error::other)?;
    let request = Request::builder().uri(uri).header(HOST, "localhost");
    let request = request.body(()).map_err(io::Error::other)?;
    let asking = async {
        match address {
            Address::Tcp(tcp) => converse(TcpStream::connect(reached(*tcp)).await?, &request).await,
            #[cfg(unix)]
            Address::Unix(path) => converse(UnixStream::connect(path).await?, &request).await,
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { timeout(PATIENCE, asking).await })?
}

/// A program that listens on all addresses is asked on this machine's own.
fn reached(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

async fn converse(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    request: &Request<()>,
) -> io::Result<(StatusCode, String)> {
    let mut input = BytesMut::new();
    let mut answer =
        h1::ask(&mut io, (request, &[]), (&mut input, ResponseReader::default())).await?;
    let body = answer.body.whole(&mut io, &mut input, LONGEST).await?;
    Ok((answer.parts.status, String::from_utf8_lossy(&body).into_owned()))
}

/// An object as lines for people: its values, then a table for each list of objects.
fn rendered(value: &Value) -> String {
    let (mut lines, mut tables) = (String::new(), String::new());
    for (name, value) in value.as_object().into_iter().flatten() {
        let rows = value.as_array().filter(|rows| rows.iter().any(Value::is_object));
        // A String takes all that is written.
        let _ = match rows {
            None => writeln!(lines, "{name}: {}", cell(value)),
            Some(rows) => write!(tables, "\n{name}\n{}", table(rows)),
        };
    }
    lines + tables.trim_end()
}

fn table(rows: &[Value]) -> String {
    let objects = || rows.iter().filter_map(Value::as_object);
    let head = objects().next().map(|row| row.keys().cloned().collect::<Vec<_>>());
    let head = head.unwrap_or_default();
    let cells = objects().map(|row| {
        head.iter().map(|name| row.get(name).map(cell).unwrap_or_default()).collect::<Vec<_>>()
    });
    let cells: Vec<_> = [head.clone()].into_iter().chain(cells).collect();
    let width = |column: usize| {
        let column = cells.iter().filter_map(|row| row.get(column));
        column.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &cells {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("  {cell:width$}"));
        let _ = writeln!(text, "{}", padded.collect::<String>().trim_end());
    }
    text
}

/// A value in one line.
fn cell(value: &Value) -> String {
    let joined =
        |cells: Vec<String>| if cells.is_empty() { "-".to_owned() } else { cells.join(" ") };
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        // Peers choose names: none may reach the terminal as anything but text.
        Value::String(text) => text.escape_debug().to_string(),
        Value::Array(items) => joined(items.iter().map(cell).collect()),
        Value::Object(fields) => {
            joined(fields.iter().map(|(name, value)| format!("{name}={}", cell(value))).collect())
        }
        scalar => scalar.to_string(),
    }
}

/// For the whole question: less than a supervisor waits for a probe.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ten thousand tunnels, each with a few names.
const LONGEST: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Backends choose their names, and a terminal obeys what comes after ESC.
    #[test]
    fn a_name_that_a_peer_chose_reaches_the_terminal_as_text_alone() {
        let rows =
            json!({ "tunnels": [{ "backend": "\u{1b}]0;mine\u{7}\r\n", "routes": ["\u{202e}"] }] });
        let text = rendered(&rows);
        assert!(text.lines().flat_map(str::chars).all(|c| !c.is_control()), "{text:?}");
        assert!(
            text.contains("\\u{1b}]0;mine\\u{7}\\r\\n") && !text.contains('\u{202e}'),
            "{text:?}"
        );
    }
}
