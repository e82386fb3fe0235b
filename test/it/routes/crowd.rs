//! Many tunnels: how many one credential may have, and that one more costs the same however many there are.

use std::time::Instant;

use ::h2::client::SendRequest;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use ptth_link::budget::Budget;
use ptth_link::h2::goaway::Why;
use ptth_link::nested::Nested;
use ptth_link::shutdown::channel;
use ptth_link::token::Token;
use ptth_server::config::{Admission, CertificateSource, Config, Route, WhenTaken};
use ptth_server::lab::Grant;
use ptth_server::lab::Registration;
use ptth_server::lab::RouteId;
use ptth_server::lab::Shard;
use ptth_server::lab::Tunnel;
use ptth_server::lab::{Identity, Key};
use ptth_test::peer::{END_STREAM, Peer, headers};
use ptth_test::routes::{Tell, credential, grant, names, route, site};
use ptth_test::{GatewayBox, Lab, connect_h2, soon};
use tokio::task::JoinSet;

use super::hold::told;

/// The third tunnel of a credential is refused where two are allowed; another credential's isn't, and one
/// that replaces a tunnel of its own process isn't.
#[tokio::test]
async fn a_credential_has_so_many_tunnels_on_a_route_and_no_more() {
    let mut lab = Lab::with(|config| {
        config.limits.tunnels = 2;
        config.routes = vec![Route::new("a", vec!["a.test".parse().expect("a host")])];
    });
    let who = |key: u8, process: &str| {
        let key = Some(Key::Other([key; 32]));
        Identity { key, ..Identity::called(&format!("{process}.0")) }
    };
    let a = || vec![grant("a.test")];
    let until = |count: usize, lab: &Lab| {
        let pool = lab.pool.clone();
        async move { soon("tunnels", pool.until(|tunnels| tunnels.len() == count)).await }
    };
    let first = lab.serve_as(who(1, "first"), a(), Tell("first"));
    let _second = lab.serve_as(who(1, "second"), a(), Tell("second"));
    until(2, &lab).await;
    let third = lab.serve_as(who(1, "third"), a(), Tell("third"));
    assert_eq!(told(soon("a refusal", third).await.unwrap()), Some(Why::OverLimit));
    let _theirs = lab.serve_as(who(2, "theirs"), a(), Tell("theirs"));
    until(3, &lab).await;
    let _heir = lab.serve_as(who(1, "first"), a(), Tell("heir"));
    soon("the end of the first", first).await.unwrap();
    until(3, &lab).await;
    let names = lab.pool.all().iter().map(|it| it.identity.instance.clone()).collect::<Vec<_>>();
    assert_eq!(names, ["second", "theirs", "first"]);
}

/// Nor by replacing one that still carries something, again and again.
#[tokio::test(start_paused = true)]
async fn tunnels_that_were_replaced_and_live_on_count_too() {
    let mut lab = Lab::with(|config| config.limits.tunnels = 2);
    let identity = Identity { key: Some(Key::Other([1; 32])), ..Identity::called("one.0") };
    let (mut kept, mut last) = (Vec::new(), None);
    for n in 0..3 {
        let mut backend = Peer::answering(lab.tunnel(identity.clone()), &[]).await;
        let newest = lab.pool.clone();
        tokio::select! {
            () = newest.until(|tunnels| tunnels.last().map(|it| it.id) != last) => {}
            () = async { while backend.next().await.is_some() {} } => panic!("tunnel {n}"),
        }
        last = lab.pool.all().last().map(|it| it.id);
        let mut visitor = lab.h1();
        visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        soon("the request", backend.request()).await.unwrap_or_else(|| panic!("tunnel {n}"));
        kept.push((backend, visitor));
    }
    let mut fourth = Peer::answering(lab.tunnel(identity.clone()), &[]).await;
    assert_eq!(soon("a refusal", fourth.end()).await, Some(Why::OverLimit.into()));
    // One of them is over.
    let (mut backend, _) = kept.remove(0);
    backend.send(headers(1, END_STREAM, &[(":status", "200")])).await;
    while soon("the end", backend.any()).await.is_some() {}
    let mut fifth = Peer::answering(lab.tunnel(identity), &[]).await;
    lab.spawn(async move { while fifth.next().await.is_some() {} });
    let newest = lab.pool.until(|tunnels| tunnels.last().map(|it| it.id) != last);
    soon("the fifth", newest).await;
}

/// Over the limit at door B is 503 with a time to come again, before the roles are transposed; and so is a
/// ninth tunnel inside one connection, whatever its credential may have.
#[tokio::test]
async fn a_registration_over_a_limit_is_told_to_come_again() {
    let token = Token::generate();
    let gateway = GatewayBox::with(|config| {
        config.limits.tunnels = 1;
        let mut names = names(&[(&token, None)]);
        names.route.when_taken = WhenTaken::Balance;
        names.allow[0].credential = credential(
            "bearer_sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"",
        );
        config.names = Some(names);
    });
    let mut tasks = JoinSet::new();
    let mut sender = connect_h2(&gateway, &mut tasks).await;
    let mut tunnels = Vec::new();
    for n in 0..8 {
        tunnels.push(register(&mut sender, &format!("n{n}")).await.expect("a tunnel"));
    }
    assert_eq!(register(&mut sender, "n8").await.err(), Some(later()), "the ninth");
    drop(tunnels.pop());
    gateway.until_registered(7).await;
    assert_eq!(register(&mut sender, "n0").await.err(), Some(later()), "the name's second");
    let mut other = connect_h2(&gateway, &mut tasks).await;
    register(&mut other, "n9").await.expect("another connection has places of its own");
}

fn later() -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, "1".to_owned())
}

/// The backend's end of a tunnel inside a stream; or the status and Retry-After of a refusal.
async fn register(
    sender: &mut SendRequest<Bytes>,
    name: &str,
) -> Result<Peer<Nested<()>>, (StatusCode, String)> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("https://example.test/.well-known/ptth/*/")
        .header("alpn", "h2")
        .header("2ptth-name", name)
        .header("authorization", "Bearer secret")
        .body(())
        .expect("a request");
    request.extensions_mut().insert(::h2::ext::Protocol::from("ptth"));
    let (response, stream) = sender.send_request(request, false).expect("a stream");
    let response = soon("an answer", response).await.expect("a response");
    if response.status() != StatusCode::OK {
        let after = response.headers().get("retry-after").map(|after| after.to_str().unwrap());
        return Err((response.status(), after.unwrap_or_default().to_owned()));
    }
    let mut backend = Peer::answering(Nested::new(stream, response.into_body(), ()), &[]).await;
    backend.ping().await;
    Ok(backend)
}

/// What it costs to join and to leave where ten thousand tunnels are is what it costs where there are a few
/// hundred. The shortest of twenty times, which other work on the machine hardly changes; a look at each tunnel
/// would make it 33 times as long.
#[tokio::test]
async fn joining_and_leaving_costs_the_same_among_ten_thousand() {
    let token = Token::generate();
    let certificate = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
    let mut config = Config::new(certificate, Admission::make());
    config.limits.tunnels = 1 << 20;
    config.routes = vec![route("a", &["a.test"], &[&token])];
    config.names = Some(names(&[(&token, None)]));
    let (_trigger, shutdown) = channel();
    let (shard, _) = Shard::alone(&config, shutdown).expect("a gateway");
    let (near, _far) = tokio::io::duplex(64 * 1024);
    let (sender, _connection) = ::h2::client::handshake(near).await.expect("a sender");
    let budget = Budget::new(1 << 20);
    let join = |n: usize, site: RouteId| -> Registration {
        let key = Some(Key::Ed25519(token.public()));
        let identity = Identity { key, ..Identity::called(&format!("host{n}.0")) };
        let tunnel =
            Tunnel::new(0, (identity, vec![Grant::by_key(site)]), budget.clone(), sender.clone());
        shard.registry.enroll(&tunnel).unwrap_or_else(|turned| panic!("{turned:?}"))
    };
    let sites: [fn(usize) -> RouteId; 2] = [|_| site("a.test"), |n| RouteId::Name(format!("n{n}"))];
    for place in sites {
        let mut present: Vec<_> = (0..300).map(|n| join(n, place(n))).collect();
        let measure = |from: usize| {
            (0..20)
                .map(|_| {
                    let began = Instant::now();
                    let came: Vec<_> = (from..from + 300).map(|n| join(n, place(n))).collect();
                    drop(came);
                    began.elapsed()
                })
                .min()
                .unwrap_or_default()
        };
        let few = measure(300);
        present.extend((300..10_000).map(|n| join(n, place(n))));
        let many = measure(10_000);
        assert!(many < 8 * few, "{few:?} for 300 tunnels among 300, {many:?} among 10,000");
        // The last to come are the first to leave, and the other way round.
        present.drain(..5_000).for_each(drop);
        present.into_iter().rev().for_each(drop);
        assert!(shard.registry.all().is_empty());
    }
}
