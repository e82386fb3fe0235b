//! What one tenant gets of another: nothing, whatever is reloaded, refused or spelt in between.
use std::sync::{Arc, Mutex};

use ptth_server::config::{NameGrant, Names, Route, WhenTaken};
use ptth_server::lab::Credential;
use ptth_test::peer;
use ptth_test::routes::Changing;
use ptth_test::{H1, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::registration::{exchange, register};
use super::{answering, bearer, credential, knock, registration, transposed};

/// An authorizer that knows `secret` and denies it these hosts; and what it was asked about.
async fn outside(
    denied: &'static [&'static str],
) -> (Arc<dyn Credential>, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = asked.clone();
    let mut running = JoinSet::new();
    running.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let hosts: Vec<String> = head
                .lines()
                .filter_map(|l| l.split_once(": "))
                .filter(|(n, _)| n.eq_ignore_ascii_case("2ptth-host"))
                .map(|(_, v)| v.to_owned())
                .collect();
            let known = head.contains("Bearer secret");
            let no = !known || hosts.iter().any(|h| denied.contains(&h.as_str()));
            told.lock().unwrap().extend(hosts);
            let status = if no { "403 Forbidden" } else { "200 OK" };
            let _ = socket
                .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())
                .await;
        }
    });
    (credential(&format!("external = {{ url = \"http://{address}/\" }}")), asked, running)
}

pub(super) fn hosts(names: &[&str]) -> Vec<ptth_server::lab::HostPattern> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn wide(external: &Arc<dyn Credential>) -> Route {
    let mut wide = Route::new("wide", hosts(&["*.w.test"]));
    wide.allow = Some(vec![bearer("wide-secret"), external.clone()]);
    wide
}

/// A name is a host only together with its domain; under another one the authorizer was never asked.
#[tokio::test]
async fn a_name_under_another_domain_was_never_granted() {
    let (external, _, _running) = outside(&[]).await;
    let mut changing = Changing::start(|config| {
        let grant = NameGrant { names: Some(vec!["bob".into()]), credential: external };
        config.names = Some(Names::new("old.test", vec![grant]));
    });
    let (_, mut bob) = register(&changing.gateway, "https%3A%2F%2Fbob.old.test", "secret").await;
    changing.gateway.until_registered(1).await;
    assert_eq!(exchange(&changing.gateway, "bob.old.test", &mut bob).await, "/hello");
    changing.change(|config| config.names.as_mut().unwrap().domain = "new.test".into()).await;
    let mut visitor = H1::connect(&changing.gateway).await;
    visitor.send("GET /stolen HTTP/1.1\r\nHost: bob.new.test\r\n\r\n").await;
    tokio::select! {
        answer = visitor.answer() => assert_ne!(answer.status, 200),
        request = bob.request() => panic!("the backend got {:?}", request.map(|r| (r.field(":authority"), r.field(":path")))),
    }
}

/// A registration that is refused after all takes no host of a pattern away.
#[tokio::test]
async fn a_refused_backend_leaves_the_pattern_as_it_was() {
    let (external, _, _running) = outside(&[]).await;
    let changing = Changing::start(|config| {
        let mut one = Route::new("one", hosts(&["e1.test"]));
        one.allow = Some(vec![external.clone()]);
        one.when_taken = WhenTaken::Reject;
        config.routes = vec![one, wide(&external)];
    });
    let gateway = &changing.gateway;
    let (_, mut w) = register(gateway, "https%3A%2F%2Ft9.w.test", "wide-secret").await;
    gateway.until_registered(1).await;
    assert_eq!(exchange(gateway, "t1.w.test", &mut w).await, "/hello");
    let mut a = knock(gateway).await;
    a.send(registration(
        "https%3A%2F%2Fe1.test",
        "Authorization: Bearer secret\r\n2ptth-instance: a.0\r\n",
    ))
    .await;
    assert_eq!(soon("a", a.head()).await.0, 101);
    let mut b = knock(gateway).await;
    b.send(registration(
        "https%3A%2F%2Fe1.test%20https%3A%2F%2Ft1.w.test",
        "Authorization: Bearer secret\r\n2ptth-instance: b.0\r\n",
    ))
    .await;
    assert_eq!(soon("b", b.head()).await.0, 101);
    let mut a = answering(a).await;
    gateway.until_registered(2).await;
    soon("the end of b", async {
        // The other one answers when it is asked whether it is still there.
        let serving = async { while a.next().await.is_some() {} };
        let refused = async {
            let mut b = transposed(b).await;
            while b.next().await.is_some() {}
        };
        tokio::select! {
            () = refused => {}
            () = serving => panic!("the first backend is gone"),
        }
    })
    .await;
    let mut visitor = H1::connect(gateway).await;
    visitor.send("GET /x HTTP/1.1\r\nHost: t1.w.test\r\n\r\n").await;
    tokio::select! {
        answer = visitor.answer() => panic!("{} though the pattern's backend is there", answer.status),
        request = w.request() => assert!(request.is_some()),
    }
}

/// Nor does one whose credential was withdrawn, while its last exchange runs.
#[tokio::test]
async fn a_withdrawn_backend_leaves_the_pattern_as_it_was() {
    let (external, _, _running) = outside(&[]).await;
    let mut changing = Changing::start(|config| config.routes = vec![wide(&external)]);
    let (_, mut w) = register(&changing.gateway, "https%3A%2F%2Ft9.w.test", "wide-secret").await;
    let (_, mut t1) = register(&changing.gateway, "https%3A%2F%2Ft1.w.test", "secret").await;
    changing.gateway.until_registered(2).await;
    let mut long = H1::connect(&changing.gateway).await;
    long.send("GET /long HTTP/1.1\r\nHost: t1.w.test\r\n\r\n").await;
    let request = soon("a request", t1.request()).await.unwrap();
    t1.send(peer::headers(request.stream, 4, &[(":status", "200")])).await;
    changing.change(|config| config.routes[0].allow = Some(vec![bearer("wide-secret")])).await;
    let mut visitor = H1::connect(&changing.gateway).await;
    visitor.send("GET /x HTTP/1.1\r\nHost: t1.w.test\r\n\r\n").await;
    tokio::select! {
        answer = visitor.answer() => panic!("{} though the pattern's backend is there", answer.status),
        request = w.request() => assert!(request.is_some()),
        _ = async { while t1.next().await.is_some() {} std::future::pending::<()>().await } => {}
    }
}

/// Who has the pattern keeps each of its hosts, where the route says so.
#[tokio::test]
async fn reject_is_kept_for_one_host_of_a_pattern() {
    let (external, _, _running) = outside(&[]).await;
    let changing = Changing::start(|config| {
        let mut wide = wide(&external);
        wide.when_taken = WhenTaken::Reject;
        config.routes = vec![wide];
    });
    let gateway = &changing.gateway;
    let (_, mut w) = register(gateway, "https%3A%2F%2Ft9.w.test", "wide-secret").await;
    gateway.until_registered(1).await;
    assert_eq!(exchange(gateway, "t1.w.test", &mut w).await, "/hello");
    let mut other = knock(gateway).await;
    other.send(registration("https%3A%2F%2Ft1.w.test", "Authorization: Bearer secret\r\n")).await;
    let serving = async { while w.next().await.is_some() {} };
    let status =
        tokio::select! { (status, _) = other.head() => status, () = serving => panic!("ended") };
    assert_eq!(status, 409);
}

/// An authorizer hears a host in the one spelling by which requests are routed.
#[tokio::test]
async fn what_is_asked_is_spelt_as_what_is_granted() {
    let (external, asked, _running) = outside(&["bank.w.test"]).await;
    let changing = Changing::start(|config| config.routes = vec![wide(&external)]);
    let gateway = &changing.gateway;
    let mut plain = knock(gateway).await;
    plain.send(registration("https%3A%2F%2Fbank.w.test", "Authorization: Bearer secret\r\n")).await;
    assert_eq!(soon("an answer", plain.head()).await.0, 401);
    let mut dotted = knock(gateway).await;
    dotted
        .send(registration("https%3A%2F%2Fbank.w.test.", "Authorization: Bearer secret\r\n"))
        .await;
    let (status, fields) = soon("an answer", dotted.head()).await;
    assert_ne!(
        status,
        101,
        "asked about {:?}, granted {:?}",
        asked.lock().unwrap(),
        fields.get("2ptth-url")
    );
}
