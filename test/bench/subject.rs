//! What is compared: each a way from a visitor's TLS connection to the origin's files.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use ptth_test::Wire;
use ptth_test::wire::Road;
use tokio::sync::oneshot;

use crate::Void;
use crate::process::{Program, until};
use crate::world::{SNDBUF, World, free_port};

/// The subjects, in the order of the tables.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    /// One TCP connection along the road, without TLS.
    Tcp,
    /// nginx, TLS, files: the ceiling.
    Direct,
    /// nginx before nginx, TLS between them: what one would build by hand.
    Twice,
    /// HAProxy's reverse HTTP, `rhttp@`, four connections.
    Haproxy,
    /// 2ptth with its defaults.
    Ours,
    /// 2ptth with one tunnel.
    One,
    /// 2ptth with four tunnels.
    Four,
}

impl Kind {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "plain TCP",
            Self::Direct => "nginx direct",
            Self::Twice => "nginx twice",
            Self::Haproxy => "HAProxy rhttp",
            Self::Ours => "2ptth",
            Self::One => "2ptth, 1 tunnel",
            Self::Four => "2ptth, 4 tunnels",
        }
    }
}

/// A running subject. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Which one.
    pub(crate) kind: Kind,
    /// Where visitors go.
    pub(crate) address: SocketAddr,
    /// Its programs: the public side first.
    pub(crate) programs: Vec<Program>,
    #[allow(dead_code, reason = "held for its drop, which takes it away")]
    far: Option<Far>,
}

impl Subject {
    /// Starts one; what is between its two sides may be long and narrow.
    pub(crate) fn start(world: &World, kind: Kind, road: Option<Road>) -> Result<Self, Void> {
        let address = free_port();
        let mut subject = Self { kind, address, programs: Vec::new(), far: None };
        match kind {
            Kind::Tcp => {
                subject.far = Some(Far::to(world.origin, road.unwrap_or_default()));
                subject.address = subject.inner(world.origin);
            }
            Kind::Direct => {
                let servers = format!("server {{ listen {address} ssl http2; FILES }}");
                subject.programs.push(world.nginx("gateway", "direct", &servers)?);
            }
            Kind::Twice => subject.twice(world, road)?,
            Kind::Haproxy => subject.haproxy(world, road)?,
            Kind::Ours => subject.ours(world, road, None)?,
            Kind::One => subject.ours(world, road, Some("1"))?,
            Kind::Four => subject.ours(world, road, Some("4"))?,
        }
        let up = until(kind.name(), || subject.is_up());
        up.and(if subject.programs.iter_mut().all(Program::runs) {
            Ok(())
        } else {
            Err(Void(format!("{} ended at once; its port may have been taken", kind.name())))
        })?;
        Ok(subject)
    }

    /// Whether a request comes through.
    fn is_up(&self) -> bool {
        if self.kind == Kind::Tcp {
            return TcpStream::connect(self.address).is_ok();
        }
        let url = format!("https://{}/1k", self.address);
        let curl = Command::new("h2load").args(["-n1", "-c1", &url]).output();
        curl.is_ok_and(|it| String::from_utf8_lossy(&it.stdout).contains("status codes: 1 2xx"))
    }

    /// The address by which the private side finds the public one.
    fn inner(&self, address: SocketAddr) -> SocketAddr {
        self.far.as_ref().map_or(address, |far| far.address)
    }

    fn twice(&mut self, world: &World, road: Option<Road>) -> Result<(), Void> {
        let (inner, origin) = (free_port(), world.origin);
        self.far = road.map(|road| Far::to(inner, road));
        let proxy = "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
            proxy_request_buffering off; proxy_max_temp_file_size 0; proxy_read_timeout 600s; proxy_send_timeout 600s;
            proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;";
        let upstream = |address: SocketAddr| {
            format!(
                "upstream next {{ server {address}; keepalive 512; keepalive_requests 100000000; }}"
            )
        };
        let server = |address: SocketAddr, with: &str, scheme: &str| {
            format!(
                "server {{ listen {address} ssl {with}; location / {{ proxy_pass {scheme}://next; {proxy} }} }}"
            )
        };
        let private = upstream(origin) + &server(inner, SNDBUF, "http");
        let public = upstream(self.inner(inner)) + &server(self.address, "http2", "https");
        self.programs.push(world.nginx("gateway", "public", &public)?);
        self.programs.push(world.nginx("client", "private", &private)?);
        Ok(())
    }

    fn haproxy(&mut self, world: &World, road: Option<Road>) -> Result<(), Void> {
        let program = world.haproxy.clone().ok_or_else(|| Void("no HAProxy".to_owned()))?;
        let door = free_port();
        self.far = road.map(|road| Far::to(door, road));
        let (dialled, work) = (self.inner(door), world.work.display());
        // What a user would set after a look at the manual, since without it some runs are nothing but 503:
        // reuse, or a tunnel takes one request at a time; more streams than 100 of a tunnel; and no closing of
        // idle tunnels when visitors have taken a quarter of the descriptors. The window of 64 KiB is only
        // widened over a distance, where 256 MiB would take minutes.
        let windows = self.far.as_ref().map_or("", |_| "\n tune.h2.initial-window-size 33554432");
        let common = format!(
            "global\n expose-experimental-directives\n maxconn 15000\n no strict-limits
 tune.pool-high-fd-ratio 100\n tune.pool-low-fd-ratio 99\n tune.h2.max-concurrent-streams 1000{windows}\n
defaults\n mode http\n timeout connect 10s\n timeout client 600s\n timeout server 600s\n"
        );
        let public = format!(
            "{common}frontend visitors\n bind {} ssl crt {work}/both.pem alpn h2,http/1.1\n default_backend far\n
frontend door\n bind {door} ssl crt {work}/both.pem alpn h2\n tcp-request session attach-srv far/near\n
backend far\n http-reuse always\n server near rhttp@\n",
            self.address
        );
        let private = format!(
            "{common}backend dial\n server door {dialled} ssl verify none alpn h2 ciphersuites TLS_AES_128_GCM_SHA256\n
frontend reversed\n bind rhttp@dial/door nbconn 4\n default_backend origin\n
backend origin\n http-reuse always\n server origin {}\n",
            world.origin
        );
        for (role, text) in [("gateway", public), ("client", private)] {
            let path = world.work.join(format!("haproxy-{role}.cfg"));
            std::fs::write(&path, text).map_err(|err| Void(format!("can't prepare: {err}")))?;
            let mut command = Command::new(&program);
            command.arg("-db").arg("-f").arg(path);
            self.programs.push(Program::start(role, command, &world.work)?);
        }
        Ok(())
    }

    fn ours(
        &mut self,
        world: &World,
        road: Option<Road>,
        tunnels: Option<&str>,
    ) -> Result<(), Void> {
        self.far = road.map(|road| Far::to(self.address, road));
        let mut gateway = Command::new(world.bin.join("2ptth-server"));
        gateway.args(["--listen", &self.address.to_string()]);
        let files = [("--cert", "cert.pem"), ("--key", "key.pem"), ("--token-file", "tokens")];
        for (flag, file) in files {
            gateway.arg(flag).arg(world.work.join(file));
        }
        // All visitors are one address here.
        gateway.args(["--max-connections", "15000", "--max-connections-per-address", "15000"]);
        self.programs.push(Program::start("gateway", gateway, &world.work)?);
        let address = self.address;
        until("the gateway", || TcpStream::connect(address).is_ok())?;
        let mut client = Command::new(world.bin.join("2ptth-client"));
        client.env("TOKEN", &*world.token.reveal()).args(["--pin", &world.pin]);
        if let Some(tunnels) = tunnels {
            client.args(["--tunnels", tunnels]);
        }
        client.arg(self.inner(address).to_string()).arg(format!("http://{}", world.origin));
        self.programs.push(Program::start("client", client, &world.work)?);
        Ok(())
    }

    /// Nanoseconds of CPU so far, by program.
    pub(crate) fn cpu(&self) -> Vec<(&'static str, u64)> {
        self.programs.iter().map(|it| (it.role, it.cpu())).collect()
    }

    /// Bytes resident, by program.
    pub(crate) fn resident(&self) -> Vec<(&'static str, u64)> {
        self.programs.iter().map(|it| (it.role, it.resident())).collect()
    }

    /// Where the programs of this subject are, if they are ours.
    pub(crate) fn binaries(&self, bin: &Path) -> Vec<(&'static str, u64)> {
        if self.kind != Kind::Ours {
            return Vec::new();
        }
        let size = |name: &str| std::fs::metadata(bin.join(name)).map_or(0, |it| it.len());
        vec![("gateway", size("2ptth-server")), ("client", size("2ptth-client"))]
    }
}

/// A long way to some address, with a thread of its own.
#[derive(Debug)]
struct Far {
    address: SocketAddr,
    #[allow(dead_code, reason = "held for its drop, which ends the thread")]
    end: oneshot::Sender<()>,
}

impl Far {
    fn to(target: SocketAddr, road: Road) -> Self {
        let (end, ended) = oneshot::channel();
        let (found, address) = mpsc::channel();
        #[expect(clippy::disallowed_methods, reason = "its end is in `end`")]
        thread::spawn(move || {
            crate::runtime().block_on(async {
                let wire = Wire::along(target, road).await;
                let _ = found.send(wire.address);
                let _ = ended.await;
            });
        });
        Self { address: address.recv().expect("a port"), end }
    }
}
