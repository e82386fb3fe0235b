//! How an origin is asked: by which name, with what it is told of visitors, and how it is known; and what is said in
//! place of its answer.

use std::net::Ipv4Addr;
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use ptth_client::Body;
use ptth_client::config::{HostHeader, OriginAddress, OriginOptions};
use ptth_client::origin::{Origin, OriginError};
use ptth_link::crypto;
use ptth_test::origin::read_head;
use ptth_test::{Backend, Certificate, Folder, GatewayBox, H1, OriginBox, soon};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn http(origin: &OriginBox) -> OriginAddress {
    OriginAddress::Http { host: "127.0.0.1".to_owned(), port: origin.address.port() }
}

fn https(origin: &OriginBox) -> OriginAddress {
    OriginAddress::Https { host: "127.0.0.1".to_owned(), port: origin.address.port() }
}

/// An origin behind TLS, which takes these labels and answers with `hi`.
async fn secure(certificate: &Certificate, labels: &[&[u8]]) -> OriginBox {
    let chain = vec![CertificateDer::from_pem_slice(certificate.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(crypto::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = labels.iter().map(|label| label.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    OriginBox::raw(move |socket, _| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(socket).await {
                read_head(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await
}

/// Answers with the head that it got.
async fn echo() -> OriginBox {
    OriginBox::raw(|mut socket, _| async move {
        let head = read_head(&mut socket).await;
        let said = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
        let _ = socket.write_all(said.as_bytes()).await;
        let _ = socket.write_all(head.as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn an_answer_of_the_clients_own_is_as_good_as_the_gateways() {
    let gateway = GatewayBox::start();
    let port = {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        free.local_addr().unwrap().port()
    };
    let address = OriginAddress::Http { host: "127.0.0.1".to_owned(), port };
    let origin = Origin::new(address, &OriginOptions::default()).unwrap();
    let _backend = Backend::serving(&gateway, origin).await;
    let ask = async |method: &str, accept: &str| {
        let mut visitor = H1::connect(&gateway).await;
        let head = format!("{method} / HTTP/1.1\r\nHost: example.test\r\nAccept: {accept}\r\n\r\n");
        visitor.send(&head).await;
        let (status, fields) = soon("a head", visitor.head()).await;
        assert_eq!((status, &fields["cache-control"] == "no-store"), (502, true));
        assert!(fields.contains_key("content-length"), "{fields:?}");
        let answer = soon("a body", visitor.rest(status, fields.clone(), method)).await;
        (fields["content-type"].to_str().unwrap().to_owned(), answer.text())
    };
    let (kind, text) = ask("GET", "*/*").await;
    assert_eq!(kind, "text/plain; charset=utf-8");
    let (sentence, id) = text.split_once("\nRequest id: ").expect("three lines");
    let expected =
        "502 The server behind this gateway is not listening.\nError code: E-ORIGIN-REFUSED";
    assert_eq!(sentence, expected);
    assert!(id.trim().len() == 16 && id.trim().bytes().all(|it| it.is_ascii_hexdigit()), "{id}");
    for accept in ["application/json", "application/problem+json"] {
        let (kind, text) = ask("GET", accept).await;
        assert_eq!(kind, "application/problem+json");
        assert!(
            text.starts_with("{\"title\":\"The server") && text.contains("urn:request:"),
            "{text}"
        );
    }
    assert_eq!(ask("HEAD", "*/*").await.1, "");
}

/// Their own words are the user's only help.
#[tokio::test]
async fn an_origin_of_another_protocol_is_told_as_such() {
    let certificate = Certificate::of(&["whatever.test"]);
    let says = |bytes: &'static [u8]| {
        OriginBox::raw(move |mut socket, _| async move {
            read_head(&mut socket).await;
            let _ = socket.write_all(bytes).await;
            // As long as the other side reads.
            let _ = socket.read_to_end(&mut Vec::new()).await;
        })
    };
    let plain = OriginBox::raw(|mut socket, _| async move {
        let _ = socket.read_u8().await;
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let grpc = says(b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0\x40\0").await;
    let alert = says(b"\x15\x03\x01\0\x02\x02\x46").await;
    let tls = secure(&certificate, &[]).await;
    let h2 = secure(&certificate, &[b"h2"]).await;
    for (address, expected) in [
        (http(&tls), "https://"),
        (http(&alert), "https://"),
        (https(&plain), "http://"),
        (http(&grpc), "HTTP/2 alone"),
        (https(&h2), "HTTP/2 alone"),
    ] {
        let origin = Origin::new(address.clone(), &OriginOptions::default()).unwrap();
        let err = soon("an error", origin.look()).await.expect_err("it can't be asked");
        assert!(matches!(err, OriginError::Foreign(_)), "{address}: {err}");
        assert!(err.to_string().contains(expected), "{address}: {err}");
    }
}

/// Neither its name nor who vouches for it need be those of the public web.
#[tokio::test]
async fn an_origin_behind_tls_is_known_by_what_the_user_says() {
    let (one, other) = (Certificate::of(&["app.test"]), Certificate::of(&["app.test"]));
    let folder = Folder::new();
    let file = folder.path("ca.pem");
    std::fs::write(&file, &one.cert).unwrap();
    let name = |name: &'static str| Some(ServerName::try_from(name).unwrap());
    for (certificate, ca, name, good) in [
        (&one, true, name("app.test"), true),
        (&one, true, name("other.test"), false),
        (&one, true, None, false),
        (&other, true, name("app.test"), false),
        (&one, false, name("app.test"), false),
        (&one, false, None, true),
    ] {
        let options = OriginOptions { ca: ca.then(|| file.clone()), name, ..Default::default() };
        let origin = secure(certificate, &[b"http/1.1"]).await;
        let origin = Origin::new(https(&origin), &options).unwrap();
        match soon("an answer", origin.look()).await {
            Ok(status) => assert!(good && status == Some(StatusCode::OK), "{options:?}"),
            Err(OriginError::Untrusted(err)) => assert!(!good, "{options:?}: {err}"),
            Err(err) => panic!("{options:?}: {err}"),
        }
    }
    let missing = OriginOptions { ca: Some(folder.path("none.pem")), ..Default::default() };
    let origin = secure(&one, &[]).await;
    let err = Origin::new(https(&origin), &missing).expect_err("there is no such file");
    assert!(err.to_string().contains("none.pem"), "{err}");
}

/// Small devices have no room for it, and some programs refuse what comes by a proxy that they don't know.
#[tokio::test]
async fn an_origin_may_be_told_nothing_of_visitors() {
    let (gateway, origin) = (GatewayBox::start(), echo().await);
    for (unforwarded, count) in [(false, 7), (true, 0)] {
        let options = OriginOptions { unforwarded, ..Default::default() };
        let backend =
            Backend::serving(&gateway, Origin::new(http(&origin), &options).unwrap()).await;
        let told = H1::get(&gateway, "/").await.text().to_lowercase();
        let of_the_way = |line: &&str| {
            ["x-forwarded-", "x-real-ip", "forwarded", "via", "2ptth-"]
                .iter()
                .any(|name| line.starts_with(name))
        };
        assert_eq!(told.lines().filter(of_the_way).count(), count, "{told}");
        assert!(told.contains("\r\nhost: "), "{told}");
        drop(backend);
        gateway.until_tunnels(0).await;
    }
}

/// Through both programs: the origin hears of its own URL, and the visitor of his.
#[tokio::test]
async fn what_names_the_url_names_it_at_both_ends() {
    let gateway = GatewayBox::start();
    let origin = OriginBox::raw(|mut socket, _| async move {
        let head = read_head(&mut socket).await;
        let destination = head.lines().find_map(|line| line.strip_prefix("destination: "));
        let said = format!(
            "HTTP/1.1 201 Created\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
            destination.unwrap_or("none")
        );
        let _ = socket.write_all(said.as_bytes()).await;
    })
    .await;
    for host_header in [HostHeader::Keep, HostHeader::Origin] {
        let options = OriginOptions { host_header, ..Default::default() };
        let service = Origin::new(http(&origin), &options).unwrap();
        let mut direct = service.clone();
        let backend = Backend::serving(&gateway, service).await;
        let mut visitor = H1::connect(&gateway).await;
        let head =
            "MOVE /a HTTP/1.1\r\nHost: example.test\r\nDestination: https://example.test/b\r\n\r\n";
        visitor.send(head).await;
        let (status, fields) = soon("a head", visitor.head()).await;
        assert_eq!(status, 201);
        assert_eq!(fields["location"], "https://example.test/b");
        // Another site's stays what it is, in both directions.
        let request = Request::builder().method("MOVE").uri("https://example.test/a");
        let request = request.header("destination", "https://evil.test/b");
        let request = request.body(Body::empty()).unwrap();
        let response = soon("a response", tower_service::Service::call(&mut direct, request)).await;
        let response = response.unwrap();
        assert_eq!(response.headers()["location"], "https://evil.test/b");
        soon("its end", response.into_body().collect()).await.unwrap();
        drop(backend);
        gateway.until_tunnels(0).await;
    }
}
