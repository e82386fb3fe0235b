//! What both programs tell on their admin address, whom they tell it, and how they are asked.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use ptth_link::token::Token;
use ptth_test::process::{Gateway, Process, run};
use ptth_test::{Answer, DEADLINE, Folder, H1, soon};
use tokio::net::{TcpStream, UnixStream};

/// What follows "admin: listening on " in the log.
pub(super) async fn admin_of(program: &Process) -> String {
    let line = program.logs("admin: listening on ").await;
    // A line of JSON has a little more behind it.
    line.rsplit(' ').next().unwrap().trim_end_matches("\"}").to_owned()
}

pub(super) async fn ask(admin: &str, request: &str) -> Answer {
    let mut prober = H1::over(TcpStream::connect(admin).await.unwrap());
    prober.send(request).await;
    soon("an answer", prober.answer()).await
}

pub(super) async fn get(admin: &str, path: &str) -> Answer {
    ask(admin, &format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n\r\n")).await
}

/// Asks until that is the status: the log tells of a tunnel before the first probe can.
async fn until(admin: &str, path: &str, status: u16) -> Answer {
    let asked = async {
        loop {
            let answer = get(admin, path).await;
            if answer.status == status {
                return answer;
            }
        }
    };
    soon(&format!("{status} from {path}"), asked).await
}

#[tokio::test]
async fn both_programs_say_how_they_are_and_are_ready_with_a_tunnel_that_answers() {
    let gateway = Gateway::start(&["--admin", "127.0.0.1:0"]).await;
    let admin = admin_of(&gateway.process).await;
    let live = get(&admin, "/livez").await;
    assert_eq!((live.status, live.text().as_str()), (200, "ok\n"));
    assert_eq!(live.field("cache-control"), "no-store");
    let away = get(&admin, "/readyz").await;
    assert_eq!((away.status, away.field("content-type").as_str()), (503, "application/json"));
    assert!(away.text().contains("\"ready\": false"), "{}", away.text());
    let refused = run("2ptth-server", &["ready", "--admin", &admin], &[]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");

    let client = gateway.client(&["--admin", "0"]);
    let clients = admin_of(&client).await;
    until(&admin, "/readyz", 200).await;
    until(&clients, "/readyz", 200).await;
    let one = H1::to(gateway.address).await.unwrap();
    let mut one = one;
    one.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    assert_eq!(one.answer().await.status, 200);
    // The gateway told the public addresses.
    client.says(" -> ").await;
    for (admin, told) in [
        (&admin, "ptth_exchanges_total{route=\"other\",class=\"2xx\",party=\"none\"} 1\n"),
        (&admin, "ptth_tunnels 2\n"),
        (&clients, "ptth_client_exchanges_total{class=\"2xx\",party=\"none\"} 1\n"),
        (&clients, "ptth_client_response_head_seconds_count 1\n"),
        (&clients, "ptth_client_tunnels 2\n"),
        (&clients, "ptth_client_tunnels_opened_total 2\n"),
    ] {
        // It is counted a moment after the visitor has its answer.
        let counted = async {
            loop {
                let metrics = get(admin, "/metrics").await;
                assert!(metrics.field("content-type").starts_with("text/plain; version=0.0.4"));
                if metrics.text().contains(told) {
                    return;
                }
            }
        };
        soon(told, counted).await;
    }

    assert_eq!(get(&admin, "/readyz?route=*/").await.status, 200);
    assert_eq!(get(&admin, "/readyz?route=nowhere").await.status, 404);
    let (status, theirs) = (get(&admin, "/status").await, get(&clients, "/status").await);
    let public = gateway.token.public().to_string();
    for told in [
        "\"version\": \"",
        "\"listening\": [",
        "\"door\": \"alpn\"",
        "\"address\": \"127.0.0.1\"",
        "\"streams_in_all\": 1",
        "\"days_left\": ",
        "\"without_backend\": []",
        "\"example.test\"",
        &gateway.address.to_string(),
        &public,
    ] {
        assert!(status.text().contains(told), "{told} isn't in {}", status.text());
    }
    for told in ["\"state\": \"up\"", "\"gateway\": \"127.0.0.1:", "\"round_trip_ms\": ", "/\""] {
        assert!(theirs.text().contains(told), "{told} isn't in {}", theirs.text());
    }
    let secret = gateway.token.reveal();
    for told in [status.text(), theirs.text(), gateway.process.said(), client.said()] {
        assert!(!told.contains(secret.trim_start_matches("2ptth_")), "a secret is told");
    }

    for (program, admin) in [("2ptth-server", &admin), ("2ptth-client", &clients)] {
        let ready = run(program, &["ready"], &[("ADMIN", admin)]).await;
        assert_eq!(ready.code, Some(0), "{ready:?}");
        let status = run(program, &["status", "--admin", admin], &[]).await;
        assert_eq!(status.code, Some(0), "{status:?}");
        assert!(status.stdout.contains("\ntunnels\n  tunnel"), "{status:?}");
        let json = run(program, &["status", "--json", "--admin", admin], &[]).await;
        assert!(json.stdout.starts_with("{\n  \"version\": "), "{json:?}");
    }
    let other = run("2ptth-server", &["ready", "--route", "a & b"], &[("ADMIN", &admin)]).await;
    assert_eq!((other.code, other.stdout.as_str()), (Some(1), "there is no such page\n"));
    let route = run("2ptth-server", &["ready", "--route", "*/"], &[("ADMIN", &admin)]).await;
    assert_eq!(route.code, Some(0), "{route:?}");
    client.kill().await;
    until(&admin, "/readyz", 503).await;
    let client = gateway.client(&["--admin", "0"]);
    let clients = admin_of(&client).await;
    until(&clients, "/readyz", 200).await;
    gateway.process.kill().await;
    until(&clients, "/readyz", 503).await;
    let asked = async {
        let lost = "ptth_client_tunnels_lost_total{why=\"unreachable\"} ";
        while !get(&clients, "/metrics").await.text().contains(lost) {}
    };
    soon("a dial that fails", asked).await;
}

/// A page that a browser of this machine shows may have any name made to resolve to this address.
#[tokio::test]
async fn the_admin_address_answers_its_own_names_and_gets_alone() {
    let gateway = Gateway::start(&["--admin", "127.0.0.1:0"]).await;
    let admin = admin_of(&gateway.process).await;
    let port = admin.parse::<SocketAddr>().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    // The second-last as a port that is mapped to this one has it.
    let addresses = [address.as_str(), "localhost", "[::1]:80", "192.0.2.1:9090", "LOCALHOST:1"];
    // As a scraper has them that is in the same network of containers or in the same cluster.
    let names = ["gateway:9090", "Gateway", "a.b.svc.cluster.local:1", "host.docker.internal"];
    for host in addresses.into_iter().chain(names) {
        let own = ask(&admin, &format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(own.status, 200, "{host}");
    }
    assert_eq!(ask(&admin, "GET /livez HTTP/1.0\r\n\r\n").await.status, 200);
    for host in [
        "evil.test",
        "127.0.0.1.evil.test",
        "2130706433",
        "localhost.evil.test:80",
        "evil.local.test",
        "0x7f000001",
    ] {
        let foreign = ask(&admin, &format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(foreign.status, 421, "{host}");
    }
    let absolute = "GET http://evil.test/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(&admin, absolute).await.status, 421);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = format!("{method} /status HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let refused = ask(&admin, &request).await;
        assert_eq!((refused.status, refused.field("allow").as_str()), (405, "GET, HEAD"));
    }
    for path in ["/", "/livez/", "/Status", "//status"] {
        assert_eq!(get(&admin, path).await.status, 404, "{path}");
    }
    let mut prober = H1::over(TcpStream::connect(&admin).await.unwrap());
    prober.send("HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = prober.answer_to("HEAD").await;
    assert_eq!(
        (head.status, head.field("content-length").as_str(), head.body.len()),
        (200, "3", 0)
    );
    assert!(prober.is_closed().await, "and no body, though it says how long that is");
    let huge =
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    assert_eq!(ask(&admin, &huge).await.status, 431);
    assert_eq!(ask(&admin, "GET /livez HTTP/1.1\nHost: localhost\n\n").await.status, 400);
}

/// They would keep the probe of a supervisor out, which would end the process.
#[tokio::test]
async fn silent_connections_to_the_admin_address_keep_no_prober_out() {
    let gateway = Gateway::start(&["--admin", "127.0.0.1:0"]).await;
    let admin = admin_of(&gateway.process).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut slow = H1::over(TcpStream::connect(&admin).await.unwrap());
        slow.send("GET /livez HT").await;
        silent.push(slow);
    }
    assert_eq!(get(&admin, "/livez").await.status, 200);
    let newest = silent.last_mut().unwrap();
    newest.send("TP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(newest.answer().await.status, 200);
}

/// Both answer until the first one ends, and none listens by mistake where another one does.
#[tokio::test]
async fn a_gateway_that_takes_over_takes_the_admin_address_too() {
    let folder = Folder::new();
    let socket = format!("unix:{}", folder.path("admin").display());
    let flags = ["--self-signed", "--open", "--listen"];
    let start = |listen: &str, more: &[&str]| {
        Process::start("2ptth-server", &[&flags[..], &[listen], more].concat(), &[])
    };
    for wanted in [socket.as_str(), "127.0.0.1:0"] {
        let old = start("127.0.0.1:0", &["--admin", wanted]);
        let listen = ptth_test::process::address_of(&old).await.to_string();
        let admin = admin_of(&old).await;
        let second = start("127.0.0.1:0", &["--admin", &admin]).ended().await;
        super::expect_sentence("2ptth-server", &second, "--admin: can't listen on");
        let heir = start(&listen, &["--admin", &admin, "--take-over"]);
        assert_eq!(admin_of(&heir).await, admin);
        let asked = async |times: usize| {
            for _ in 0..times {
                let said = run("2ptth-server", &["status", "--admin", &admin], &[]).await;
                assert_eq!(said.code, Some(0), "{said:?}");
                assert!(said.stdout.contains(&listen), "{said:?}");
            }
        };
        asked(10).await;
        old.signal("TERM");
        assert_eq!(old.ended().await.code, Some(0));
        asked(3).await;
        heir.signal("TERM");
        assert_eq!(heir.ended().await.code, Some(0));
    }
}

#[tokio::test]
async fn an_admin_socket_is_the_owners_alone_and_is_taken_from_nobody() {
    let folder = Folder::new();
    let path = folder.path("admin");
    let admin = format!("unix:{}", path.display());
    let gateway = Gateway::start(&["--admin", &admin]).await;
    admin_of(&gateway.process).await;
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    // Any Host will do: no browser reaches it.
    let mut prober = H1::over(UnixStream::connect(&path).await.unwrap());
    prober.send("GET /livez HTTP/1.1\r\nHost: evil.test\r\n\r\n").await;
    assert_eq!(prober.answer().await.status, 200);
    let second = ["--self-signed", "--listen", "127.0.0.1:0", "--admin", &admin];
    let second = run("2ptth-server", &second, &[]).await;
    super::expect_sentence("2ptth-server", &second, "can't listen on unix:");
    let asked = run("2ptth-server", &["status"], &[("ADMIN", &admin)]).await;
    assert_eq!(asked.code, Some(0), "the first one answers on: {asked:?}");
    // What a killed one leaves is replaced.
    let gateway = gateway.kill().await;
    assert!(path.exists());
    let gateway = gateway.restart().await;
    admin_of(&gateway.process).await;
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "and nothing else is left"
    );
    let file = folder.write("file", "mine");
    let file = format!("unix:{}", file.display());
    let third = ["--self-signed", "--listen", "127.0.0.1:0", "--admin", &file];
    let third = run("2ptth-server", &third, &[]).await;
    super::expect_sentence("2ptth-server", &third, "it is no socket");
}

#[tokio::test]
async fn ready_and_status_say_what_is_wrong_with_the_question() {
    for program in ["2ptth-server", "2ptth-client"] {
        for (arguments, why) in [
            (&["ready"][..], "--admin ADDR (ADMIN)"),
            (&["status", "--admin", "localhost:1"], "must be a port"),
            (&["ready", "--admni", "1"], "did you mean --admin?"),
            (&["status", "--admin", "unix:/nowhere/admin"], "doesn't answer"),
        ] {
            super::expect_sentence(program, &run(program, arguments, &[]).await, why);
        }
    }
}

/// A load balancer's probe names the address that it dials.
#[tokio::test]
async fn a_probe_of_the_health_path_is_answered_for_any_host_before_all_routes() {
    let gateway = Gateway::start(&["--health-path", "/.health"]).await;
    let mut visitor = H1::to(gateway.address).await.unwrap();
    for (request, status, body) in [
        ("GET /.health HTTP/1.1\r\nHost: 10.0.0.9:443\r\n\r\n", 200, "ok\n"),
        ("GET /.health HTTP/1.1\r\nHost: nowhere.invalid\r\n\r\n", 200, "ok\n"),
    ] {
        visitor.send(request).await;
        let answer = visitor.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{request}");
    }
    visitor.send("HEAD /.health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(visitor.answer_to("HEAD").await.status, 200);
    for request in ["POST /.health", "GET /.health/", "GET /.healthy"] {
        visitor.send(format!("{request} HTTP/1.1\r\nHost: example.test\r\n\r\n")).await;
        assert_eq!(visitor.answer().await.status, 502, "{request}");
    }
    let other = Gateway::start(&[]).await;
    let mut visitor = H1::to(other.address).await.unwrap();
    visitor.send("GET /.health HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 502, "no path of an origin is taken unasked");
}

/// A socket as systemd's, and what it is sent, one message after the other.
struct Supervisor {
    path: String,
    socket: UnixDatagram,
}

impl Supervisor {
    fn new(folder: &Folder) -> Self {
        let path = folder.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        Self { path: path.display().to_string(), socket }
    }

    /// Waits for a message that begins so.
    async fn hears(&self, begins: &str) -> String {
        let (socket, begins) = (self.socket.try_clone().unwrap(), begins.to_owned());
        let hearing = tokio::task::spawn_blocking(move || {
            let until = Instant::now() + DEADLINE;
            loop {
                // Others may go on coming.
                assert!(Instant::now() < until, "{begins} isn't said");
                let mut message = [0; 512];
                let read =
                    socket.recv(&mut message).unwrap_or_else(|err| panic!("{begins}: {err}"));
                let message = String::from_utf8_lossy(&message[..read]).into_owned();
                if message.starts_with(&begins) {
                    return message;
                }
            }
        });
        hearing.await.unwrap()
    }
}

#[tokio::test]
async fn systemd_hears_of_the_start_the_state_a_reload_and_the_end() {
    let folder = Folder::new();
    let supervisor = Supervisor::new(&folder);
    let variables = [("NOTIFY_SOCKET", supervisor.path.as_str()), ("WATCHDOG_USEC", "2000000")];
    let arguments = ["--self-signed", "--open", "--listen", "127.0.0.1:0"];
    let gateway = Process::start("2ptth-server", &arguments, &variables);
    supervisor.hears("READY=1").await;
    supervisor.hears("STATUS=tunnels: 0").await;
    supervisor.hears("WATCHDOG=1").await;
    gateway.signal("HUP");
    let reloading = supervisor.hears("RELOADING=1").await;
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading:?}");
    supervisor.hears("READY=1").await;

    let theirs = Folder::new();
    let clients = Supervisor::new(&theirs);
    let address = ptth_test::process::address_of(&gateway).await.to_string();
    let token = Token::generate().reveal().to_string();
    let variables = [("NOTIFY_SOCKET", clients.path.as_str()), ("TOKEN", token.as_str())];
    let client = Process::start("2ptth-client", &["--insecure", &address], &variables);
    clients.hears("READY=1").await;
    supervisor.hears("STATUS=tunnels: 2").await;
    clients.hears("STATUS=tunnels: 2 of 2").await;
    client.signal("TERM");
    clients.hears("STOPPING=1").await;
    gateway.signal("TERM");
    supervisor.hears("STOPPING=1").await;
}
