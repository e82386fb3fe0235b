//! The way to the gateway leads through a proxy: by CONNECT or SOCKS5, made of raw bytes, to a real gateway
//! in memory.

use std::sync::Arc;
use std::time::Duration;

use ptth_client::Stopped;
use ptth_client::config::{Config, Gateway, Proxies};
use ptth_client::demo::Demo;
use ptth_client::dial::DialError;
use ptth_test::fake::splice;
use ptth_test::origin::read_head;
use ptth_test::process::{Process, address_of};
use ptth_test::room::{Guest, Pipes, Room, process};
use ptth_test::wire::Road;
use ptth_test::{Fake, OriginBox, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep};

const PROXY: &str = "proxy.test:3128";

fn config(room: &Room, https: &str, all: &str, no: &str) -> Config {
    let mut config = room.client_config();
    config.proxies = Proxies::new(https, all, no).unwrap();
    config
}

/// An HTTP proxy that leads to `gateway`; `refusal` is what it says instead, by the head it read.
fn http_proxy<F>(fake: &Fake, gateway: &Pipes, refusal: F)
where
    F: Fn(&str) -> Option<String> + Send + Sync + 'static,
{
    let (gateway, refusal) = (gateway.clone(), Arc::new(refusal));
    fake.put(PROXY, move |mut io, _| {
        let (gateway, refusal) = (gateway.clone(), refusal.clone());
        async move {
            let head = read_head(&mut io).await;
            if let Some(refusal) = refusal(&head) {
                let _ = io.write_all(refusal.as_bytes()).await;
                let _ = io.shutdown().await;
                return;
            }
            io.write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await.unwrap();
            splice(io, gateway.open().0).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_proxy_is_asked_for_the_gateway_by_name_and_only_it_is_dialled() {
    let (room, fake) = (Room::new(), Fake::default());
    let (told, mut heads) = unbounded_channel();
    http_proxy(&fake, &room.network(Road::default()), move |head| {
        let _ = told.send(head.to_owned());
        None
    });
    let url = "http://us%40er:p%3Ass@proxy.test:3128";
    let guest = Guest::start(&process(config(&room, url, "", "")), fake.clone(), Demo);
    room.until_tunnels(2).await;
    assert_eq!(fake.dialled(), [PROXY, PROXY]);
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("CONNECT example.test:443 HTTP/1.1\r\n"), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(lower.contains("\r\nhost: example.test:443\r\n"), "{head}");
    // RFC 7617: us@er:p:ss
    assert!(lower.contains("\r\nproxy-authorization: basic dxnazxi6cdpzcw==\r\n"), "{head}");
    guest.stop();
    guest.ended().await.expect("an orderly end");
}

#[tokio::test(start_paused = true)]
async fn hosts_without_a_proxy_are_dialled_directly() {
    let (room, fake) = (Room::new(), Fake::default());
    let direct = room.network(Road::default());
    fake.put("example.test:443", move |io, _| {
        let direct = direct.clone();
        async move { splice(io, direct.open().0).await }
    });
    for no in ["example.test", ".test", "*", "10.0.0.0/8, example.test"] {
        let config = config(&room, PROXY, "socks5://proxy.test", no);
        let guest = Guest::start(&process(config), fake.clone(), Demo);
        room.until_tunnels(2).await;
        guest.stop();
        guest.ended().await.expect("an orderly end");
        room.until_tunnels(0).await;
    }
    assert!(fake.dialled().iter().all(|dialled| dialled == "example.test:443"), "{fake:?}");
}

/// The sentence says which leg refused, and holds no password.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_refuses_is_told_from_a_gateway_that_does() {
    let cases = [
        ("407 Proxy Authentication Required", "the proxy http://proxy.test:3128 refuses (407)"),
        ("403 Forbidden", "the proxy http://proxy.test:3128 refuses (403)"),
        ("405 Method Not Allowed", "the proxy http://proxy.test:3128 refuses (405)"),
    ];
    for (status, words) in cases {
        let (room, fake) = (Room::new(), Fake::default());
        http_proxy(&fake, &room.network(Road::default()), move |_| {
            Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
        });
        let config = config(&room, "http://u:c2VjcmV0@proxy.test:3128", "", "");
        let guest = Guest::start(&process(config), fake.clone(), Demo);
        let stopped = guest.ended().await.expect_err(status);
        assert!(matches!(stopped, Stopped::Unknown(DialError::Proxy(..))), "{stopped:?}");
        let said = format!("{stopped} {stopped:?}");
        assert!(said.contains(words) && !said.contains("c2VjcmV0"), "{said}");
    }
}

/// The proxy is there and the gateway isn't, or neither is.
#[tokio::test(start_paused = true)]
async fn behind_a_proxy_the_client_is_back_within_two_seconds_of_its_gateway() {
    for away in
        ["HTTP/1.1 502 Bad Gateway\r\n\r\n", "HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", ""]
    {
        let (room, fake) = (Room::new(), Fake::default());
        let gateway = room.network(Road::default());
        if !away.is_empty() {
            http_proxy(&fake, &gateway, move |_| Some(away.to_owned()));
        }
        let _guest = Guest::start(&process(config(&room, "", PROXY, "")), fake.clone(), Demo);
        sleep(Duration::from_secs(200)).await;
        http_proxy(&fake, &gateway, |_| None);
        let back = Instant::now();
        room.until_tunnels(2).await;
        assert!(back.elapsed() <= Duration::from_secs(2), "{away}: {:?}", back.elapsed());
    }
}

/// Whatever a proxy says or doesn't say, the client comes back to it.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_says_nothing_or_nonsense_is_given_up_and_tried_again() {
    let cases: [(&str, Vec<u8>); 8] = [
        ("http://proxy.test:3128", vec![]),
        ("http://proxy.test:3128", b"HTTP/1.1 200".to_vec()),
        ("http://proxy.test:3128", b"garbage\r\n\r\n".to_vec()),
        ("http://proxy.test:3128", vec![b'a'; 200_000]),
        ("https://proxy.test:3128", b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        ("socks5://proxy.test:3128", vec![]),
        ("socks5://proxy.test:3128", vec![5]),
        ("socks5://proxy.test:3128", vec![5, 0, 5]),
    ];
    for (url, answer) in cases {
        let (room, fake) = (Room::new(), Fake::default());
        let (told, mut dials) = unbounded_channel();
        let said = answer.clone();
        fake.put(PROXY, move |mut io, _| {
            let (said, told) = (said.clone(), told.clone());
            async move {
                let _ = told.send(());
                let _ = io.read(&mut [0; 1024]).await;
                let _ = io.write_all(&said).await;
                // Silence, but not with a full pipe.
                let _ = io.read(&mut [0; 1024]).await;
                std::future::pending::<()>().await;
            }
        });
        let mut config = config(&room, "", url, "");
        config.tunnels = 1;
        let guest = Guest::start(&process(config), fake.clone(), Demo);
        dials.recv().await.unwrap();
        let begun = Instant::now();
        soon("another dial", dials.recv()).await.unwrap();
        let waited = begun.elapsed();
        assert!(waited <= Duration::from_secs(11), "{url} {answer:?}: {waited:?}");
        drop(guest);
    }
}

/// The other end of SOCKS5, by the bytes of RFC 1928 and RFC 1929. Tells the host that it was asked for.
async fn socks(io: &mut DuplexStream, login: Option<(&str, &str)>, reply: u8) -> Option<String> {
    let mut head = [0; 2];
    io.read_exact(&mut head).await.ok()?;
    assert_eq!(head[0], 5);
    let mut methods = vec![0; head[1].into()];
    io.read_exact(&mut methods).await.ok()?;
    let wanted = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&wanted) {
        io.write_all(&[5, 0xff]).await.ok()?;
        return None;
    }
    io.write_all(&[5, wanted]).await.ok()?;
    if let Some((user, password)) = login {
        let expected =
            [&[1, user.len() as u8], user.as_bytes(), &[password.len() as u8], password.as_bytes()]
                .concat();
        let mut given = vec![0; expected.len()];
        io.read_exact(&mut given).await.ok()?;
        let right = given == expected;
        io.write_all(&[1, u8::from(!right)]).await.ok()?;
        if !right {
            return None;
        }
    }
    let mut request = [0; 5];
    io.read_exact(&mut request).await.ok()?;
    assert_eq!(request[..4], [5, 1, 0, 3], "CONNECT, to a name");
    let mut name = vec![0; usize::from(request[4]) + 2];
    io.read_exact(&mut name).await.ok()?;
    let port = u16::from_be_bytes([name[name.len() - 2], name[name.len() - 1]]);
    let host = String::from_utf8_lossy(&name[..name.len() - 2]).into_owned();
    io.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    (reply == 0).then(|| format!("{host}:{port}"))
}

#[tokio::test(start_paused = true)]
async fn a_socks_proxy_resolves_the_name_and_knows_us_by_a_password() {
    for (url, login) in [
        ("socks5://proxy.test", None),
        ("socks5h://proxy.test:1080", None),
        ("socks5h://user:p%3Ass@proxy.test", Some(("user", "p:ss"))),
    ] {
        let (room, fake) = (Room::new(), Fake::default());
        let gateway = room.network(Road::default());
        let (told, mut asked) = unbounded_channel();
        fake.put("proxy.test:1080", move |mut io, _| {
            let (gateway, told) = (gateway.clone(), told.clone());
            async move {
                if let Some(target) = socks(&mut io, login, 0).await {
                    let _ = told.send(target);
                    splice(io, gateway.open().0).await;
                }
            }
        });
        let _guest = Guest::start(&process(config(&room, "", url, "")), fake.clone(), Demo);
        room.until_tunnels(2).await;
        assert_eq!(asked.recv().await.unwrap(), "example.test:443");
        assert!(fake.dialled().iter().all(|dialled| dialled == "proxy.test:1080"), "{fake:?}");
    }
}

/// A wrong password is said at once, a gateway that is away is waited for.
#[tokio::test(start_paused = true)]
async fn what_a_socks_proxy_refuses_is_told_from_what_it_cannot_reach() {
    type Case = (&'static str, Option<(&'static str, &'static str)>, u8, &'static str);
    let refused: [Case; 3] = [
        ("socks5://u:c2VjcmV0@proxy.test", Some(("u", "c2VjcmVx")), 0, "Password auth failure"),
        ("socks5://proxy.test", Some(("u", "x")), 0, "No acceptable auth methods"),
        ("socks5://proxy.test", None, 2, "not allowed by ruleset"),
    ];
    for (url, login, reply, words) in refused {
        let (room, fake) = (Room::new(), Fake::default());
        fake.put("proxy.test:1080", move |mut io, _| async move {
            socks(&mut io, login, reply).await;
            let _ = io.shutdown().await;
        });
        let guest = Guest::start(&process(config(&room, "", url, "")), fake.clone(), Demo);
        let said = guest.ended().await.expect_err(words).to_string();
        assert!(
            said.contains(words) && said.contains("the proxy socks5://proxy.test:1080"),
            "{said}"
        );
        assert!(!said.contains("c2VjcmV0"), "{said}");
    }
    for reply in [1, 3, 4, 5, 6] {
        let (room, fake) = (Room::new(), Fake::default());
        let gateway = room.network(Road::default());
        fake.put("proxy.test:1080", move |mut io, _| async move {
            socks(&mut io, None, reply).await;
            let _ = io.shutdown().await;
        });
        let config = config(&room, "socks5://proxy.test", "", "");
        let _guest = Guest::start(&process(config), fake.clone(), Demo);
        sleep(Duration::from_secs(100)).await;
        fake.put("proxy.test:1080", move |mut io, _| {
            let gateway = gateway.clone();
            async move {
                socks(&mut io, None, 0).await.unwrap();
                splice(io, gateway.open().0).await;
            }
        });
        let back = Instant::now();
        room.until_tunnels(2).await;
        assert!(back.elapsed() <= Duration::from_secs(2), "{reply}: {:?}", back.elapsed());
    }
}

/// The real client, its environment, and a gateway that has a name only at the proxy.
#[tokio::test]
async fn the_real_client_goes_through_the_proxy_of_its_environment() {
    let arguments = ["--self-signed", "--open", "--listen", "127.0.0.1:0"];
    let gateway = Process::start("2ptth-server", &arguments, &[]);
    let address = address_of(&gateway).await;
    let proxy = OriginBox::raw(move |mut socket, _| async move {
        let head = read_head(&mut socket).await;
        assert!(head.starts_with("CONNECT gateway.invalid:443 HTTP/1.1\r\n"), "{head}");
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        splice(socket, TcpStream::connect(address).await.unwrap()).await;
    })
    .await;
    let url = format!("http://u:c2VjcmV0@{}", proxy.address);
    let arguments = ["--insecure", "--log", "trace", "gateway.invalid"];
    for variable in ["https_proxy", "ALL_PROXY"] {
        let client = Process::start("2ptth-client", &arguments, &[(variable, &url)]);
        client.logs("tunnel: 0 up").await;
        client.logs("tunnel: 1 up").await;
        client.signal("TERM");
        let output = client.ended().await;
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(output.stderr.contains(&format!("proxy=http://{}", proxy.address)), "{output:?}");
        assert!(
            !output.stderr.contains("c2VjcmV0") && !output.stderr.contains("dTpj"),
            "{output:?}"
        );
    }
}

/// `Gateway` writes an IPv6 address in brackets, and so must a CONNECT.
#[tokio::test(start_paused = true)]
async fn an_address_of_the_sixth_version_stands_in_brackets() {
    let (room, fake) = (Room::new(), Fake::default());
    let (told, mut heads) = unbounded_channel();
    http_proxy(&fake, &room.network(Road::default()), move |head| {
        let _ = told.send(head.to_owned());
        None
    });
    let mut config = config(&room, PROXY, "", "");
    config.gateway = Gateway::parse("[2001:db8::1]:8443").unwrap();
    let _guest = Guest::start(&process(config), fake.clone(), Demo);
    room.until_tunnels(2).await;
    assert!(heads.recv().await.unwrap().starts_with("CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n"));
}
