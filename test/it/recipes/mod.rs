//! The recipes of `docs/recipes.md`, run as they stand there by the real programs: their files, their commands, and
//! what `curl` is said to show. Addresses are put in the place of the page's names. What takes Node or Caddy is in
//! `test/interop/recipes.sh`.

mod groups;
pub(crate) mod names;
mod open;
mod webhooks;

use std::net::SocketAddr;
use std::path::Path;

use http::Response;
use http_body_util::Full;
use ptth_link::crypto::pin_text;
use ptth_test::process::{Process, address_of, binary};
use ptth_test::{Answer, Certificate, Folder, H1, Hello, OriginBox, soon};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Command;

/// A section of the page, and a folder in which it is followed.
struct Recipe {
    folder: Folder,
    /// Language and text of each block.
    blocks: Vec<(String, String)>,
    pin: String,
}

impl Recipe {
    /// The recipe whose heading ends with `(job)`. Its certificate is there, and its files are written as
    /// they stand.
    fn of(job: &str) -> Self {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/recipes.md");
        let page = std::fs::read_to_string(page).expect("the recipes");
        let headings = page.split("\n## Recipe: ");
        let mut sections =
            headings.filter(|section| section.lines().next().is_some_and(|l| l.ends_with(job)));
        let section = sections.next().expect("the recipe");
        let mut blocks = Vec::new();
        for block in section.split("\n```").skip(1).step_by(2) {
            let (language, text) = block.split_once('\n').expect("a block");
            blocks.push((language.to_owned(), text.to_owned()));
            assert!(text.lines().count() <= 25, "{job}: long");
        }
        let folder = Folder::new();
        let certificate = Certificate::of(&["example.com"]);
        certificate.write(&folder);
        let recipe = Self { folder, blocks, pin: pin_text(&certificate.pin()) };
        for (language, text) in &recipe.blocks {
            if language == "toml" {
                let name = text.lines().next().unwrap_or_default().trim_start_matches("# ");
                recipe.folder.write(name, recipe.placed(text));
            }
        }
        recipe
    }

    /// With the certificate's files in place of the page's.
    fn placed(&self, text: &str) -> String {
        let text = text.replace("/etc/2ptth/fullchain.pem", "cert.pem");
        text.replace("/etc/2ptth/privkey.pem", "key.pem")
    }

    /// Changes a file of the recipe.
    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.folder.path(name)).expect("the file");
        assert!(text.contains(from), "{name} has no {from}");
        self.folder.write(name, text.replace(from, to));
    }

    /// All lines of its commands that begin with or hold `program`; there are some.
    fn lines(&self, program: &str) -> Vec<&str> {
        let shells = self.blocks.iter().filter(|(language, _)| language == "sh");
        let lines = shells.flat_map(|(_, text)| text.lines());
        let lines: Vec<_> = lines.filter(|line| command(line).contains(program)).collect();
        assert!(!lines.is_empty(), "no {program}");
        lines
    }

    /// Runs a line of one of our programs, by the shell and with nothing in the environment but its own.
    fn run(&self, line: &str, replace: &[(&str, &str)]) -> Process {
        let mut line = self.placed(command(line));
        for (from, to) in replace {
            assert!(line.contains(from), "{line:?} has no {from}");
            line = line.replace(from, to);
        }
        // Not a child of the shell, which would be killed in its place.
        let line = line.replacen("2ptth-", "exec 2ptth-", 1);
        let programs = binary("2ptth-server");
        let programs = programs.parent().map(Path::display).expect("a folder");
        let mut command = Command::new("sh");
        command.arg("-c").arg(line).env_clear().env("PATH", format!("{programs}:/usr/bin:/bin"));
        command.current_dir(self.folder.path(""));
        Process::spawn(command)
    }

    /// Runs its gateway, on any free port.
    async fn gateway(&self, line: &str) -> (Process, SocketAddr) {
        self.gateway_at(line, "127.0.0.1:0").await
    }

    async fn gateway_at(&self, line: &str, listen: &str) -> (Process, SocketAddr) {
        let listen = format!("2ptth-server --listen {listen}");
        let gateway = self.run(line, &[("2ptth-server", &listen)]);
        let address = address_of(&gateway).await;
        (gateway, address)
    }

    /// Runs a client at that gateway.
    fn client(&self, line: &str, gateway: SocketAddr, replace: &[(&str, &str)]) -> Process {
        let address = gateway.to_string();
        let knowing = format!("2ptth-client --pin {}", self.pin);
        let named = if line.contains("GATEWAY=") { "GATEWAY=example.com" } else { " example.com" };
        let address = named.replace("example.com", &address);
        let ours = [("2ptth-client", &*knowing), (named, &*address)];
        self.run(line, &[&ours, replace].concat())
    }
}

/// A line without the remark behind it.
fn command(line: &str) -> &str {
    line.split(" # ").next().unwrap_or_default().trim()
}

/// The remark behind a line.
fn remark(line: &str) -> &str {
    line.split(" # ").nth(1).unwrap_or_default().trim()
}

/// Does what a `curl` line of the page does, at `gateway`.
async fn curl(line: &str, gateway: SocketAddr) -> Answer {
    let words: Vec<_> =
        command(line).split_whitespace().map(|word| word.trim_matches('\'')).collect();
    let (data, url) = match words.as_slice() {
        ["curl", url] => (None, url),
        ["curl", "-d", data, url] => (Some(data), url),
        _ => panic!("{line}"),
    };
    let url = url.trim_start_matches("https://").replace("delay=2", "delay=0.2");
    let (host, path) = url.split_once('/').expect("a path");
    let method = if data.is_some() { "POST" } else { "GET" };
    let mut visitor = visit(gateway).await;
    let body = data.copied().unwrap_or_default();
    visitor
        .send(format!(
            "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    soon("an answer", visitor.answer()).await
}

/// A visitor's connection. That it names no host leaves all of them to him.
async fn visit(gateway: SocketAddr) -> H1<impl AsyncRead + AsyncWrite + Unpin> {
    let stream = Hello::offering(&[b"http/1.1"]).without_name().connect(gateway).await;
    H1::over(stream.expect("TLS"))
}

/// Waits until the gateway has its tunnels up to this one: a client knows of its own a moment before.
async fn until_up(gateway: &Process, tunnels: usize) {
    for number in 1..=tunnels {
        gateway.logs(&format!("tunnel: t{number} up")).await;
    }
}

/// Does a `curl` line, and holds the page to what it says comes back: a status, or a body.
async fn shows(line: &str, gateway: SocketAddr) {
    let answer = curl(line, gateway).await;
    match remark(line).parse::<u16>() {
        Ok(status) => assert_eq!(answer.status, status, "{line}: {}", answer.text()),
        Err(_) => assert_eq!((answer.status, answer.text().trim()), (200, remark(line)), "{line}"),
    }
}

/// An origin that answers each request with this text, in which METHOD and PATH are the request's.
async fn origin(text: &'static str) -> OriginBox {
    OriginBox::http(move |request| async move {
        let (method, uri) = (request.method().as_str(), request.uri().to_string());
        let text = text.replace("METHOD", method).replace("PATH", &uri);
        Response::new(Full::<bytes::Bytes>::from(text))
    })
    .await
}
