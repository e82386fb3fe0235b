//! What all subjects have in common: files, a certificate, a token, ports, and the nginx that is the origin.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use ptth_link::crypto;
use ptth_link::token::Token;
use ptth_test::Certificate;

use crate::Void;
use crate::process::{Program, until};
use crate::trace::strace;

/// The common ground.
#[derive(Debug)]
pub(crate) struct World {
    /// For whatever must be a file.
    pub(crate) work: PathBuf,
    /// Where our two programs are.
    pub(crate) bin: PathBuf,
    /// A HAProxy that knows reverse HTTP, if there is one.
    pub(crate) haproxy: Option<PathBuf>,
    /// What admits our client.
    pub(crate) token: Token,
    /// The gateway's pin.
    pub(crate) pin: String,
    /// The strace that counts system calls, or why none does.
    pub(crate) strace: Result<String, String>,
    /// Plain HTTP/1.1, static files.
    pub(crate) origin: SocketAddr,
    user: String,
    #[allow(dead_code, reason = "held for its drop, which stops it")]
    nginx: Program,
}

impl World {
    /// Makes the files and starts the origin.
    pub(crate) fn new(work: PathBuf, bin: PathBuf) -> Result<Self, Void> {
        let io = |err: std::io::Error| Void(format!("can't prepare: {err}"));
        for folder in ["www", "put"] {
            fs::create_dir_all(work.join(folder)).map_err(io)?;
        }
        fs::write(work.join("www/1k"), crypto::random::<1024>()).map_err(io)?;
        for (name, size) in [("10m", 10 << 20), ("256m", 256 << 20), ("1g", 1 << 30)] {
            // Holes: the same work for everybody but the disk.
            File::create(work.join("www").join(name))
                .and_then(|it| it.set_len(size))
                .map_err(io)?;
        }
        let certificate = Certificate::of(&["localhost", "127.0.0.1", "example.test"]);
        fs::write(work.join("cert.pem"), &certificate.cert).map_err(io)?;
        fs::write(work.join("key.pem"), &certificate.key).map_err(io)?;
        fs::write(work.join("both.pem"), certificate.cert.clone() + &certificate.key)
            .map_err(io)?;
        let token = Token::generate();
        fs::write(work.join("tokens"), token.public().to_string()).map_err(io)?;
        let origin = free_port();
        let user = words("id", &["-un"]) + " " + &words("id", &["-gn"]);
        let server = format!("listen {origin} {SNDBUF}; {FILES}").replace("WORK", &text(&work));
        let conf = conf(&work, &user, "origin", &format!("server {{ {server} }}"))?;
        let mut nginx = Program::start("origin", nginx(&work, &conf), &work)?;
        until("the origin", || TcpStream::connect(origin).is_ok() || !nginx.runs())?;
        let pin = crypto::pin_text(&certificate.pin());
        let strace = strace(&nginx, &work);
        Ok(Self { haproxy: haproxy(), strace, work, bin, token, pin, origin, user, nginx })
    }

    /// An nginx with `servers` in its configuration.
    pub(crate) fn nginx(
        &self,
        role: &'static str,
        name: &str,
        servers: &str,
    ) -> Result<Program, Void> {
        let servers = servers.replace("FILES", FILES).replace("WORK", &text(&self.work));
        let conf = conf(&self.work, &self.user, name, &servers)?;
        Program::start(role, nginx(&self.work, &conf), &self.work)
    }
}

fn conf(work: &Path, user: &str, name: &str, servers: &str) -> Result<PathBuf, Void> {
    let conf = CONF.replace("SERVERS", servers).replace("NAME", name).replace("USER", user);
    let path = work.join(format!("{name}.conf"));
    let written = fs::write(&path, conf.replace("WORK", &text(work)));
    written.map_err(|err| Void(format!("can't prepare: {err}"))).map(|()| path)
}

fn nginx(work: &Path, conf: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(work).arg("-c").arg(conf);
    command
}

/// A HAProxy of 3.0 or later: the first in which reverse HTTP is usable.
fn haproxy() -> Option<PathBuf> {
    let path = std::env::var_os("HAPROXY").map_or_else(|| "haproxy".into(), PathBuf::from);
    let output = Command::new(&path).arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version =
        text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let major: u32 = version?.split('.').next()?.parse().ok()?;
    (major >= 3).then_some(path)
}

/// What a program prints, in one line.
pub(crate) fn words(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned()).unwrap_or_default()
}

/// A port that was free a moment ago: nginx can't be asked for any.
pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// On loopback a kernel would keep 4 MiB for each who stops reading, and a thousand of them use up what it
/// has for TCP in all. Twice this is still more than such a connection has under way.
pub(crate) const SNDBUF: &str = "sndbuf=128k";

/// Static files, and uploads that become files.
const FILES: &str = "root WORK/www; location /put/ { root WORK; dav_methods PUT; }";

/// Limits are lifted where they would end a run, as those of the other subjects are.
const CONF: &str = "
daemon off; worker_processes auto; worker_rlimit_nofile 16384;
pid WORK/NAME.pid; error_log WORK/nginx.log warn; user USER;
events { worker_connections 15000; }
http {
    access_log off; sendfile on; default_type application/octet-stream;
    keepalive_requests 100000000; keepalive_timeout 600s; client_header_timeout 600s; client_body_timeout 600s;
    send_timeout 600s; http2_max_concurrent_streams 1000;
    client_max_body_size 0; client_body_buffer_size 256k;
    client_body_temp_path WORK/put/body; proxy_temp_path WORK/put/proxy; fastcgi_temp_path WORK/put/fcgi;
    uwsgi_temp_path WORK/put/uwsgi; scgi_temp_path WORK/put/scgi;
    ssl_certificate WORK/cert.pem; ssl_certificate_key WORK/key.pem; ssl_protocols TLSv1.2 TLSv1.3;
    SERVERS
}
";
