//! Files that are replaced while the gateway runs.

use ptth_link::token::Token;
use ptth_server::Order;
use ptth_server::config::{Admission, CertificateSource};
use ptth_test::process::{Gateway, run};
use ptth_test::{Backend, Certificate, Folder, GatewayBox, H1, Hello, soon};

/// A gateway whose certificate and keys are files.
struct Filed {
    gateway: GatewayBox,
    folder: Folder,
    certificate: Certificate,
}

impl Filed {
    fn start() -> Self {
        let folder = Folder::new();
        let certificate = Certificate::of(&["example.test"]);
        let (cert, key) = certificate.write(&folder);
        let file = folder.path("tokens");
        let path = file.clone();
        let gateway = GatewayBox::with(|config| {
            config.certificates = vec![CertificateSource::Files { cert, key }];
            if let Admission::Keys { file, .. } = &mut config.admission {
                *file = Some(path);
            }
        });
        folder.write("tokens", gateway.token.public().to_string());
        Self { gateway, folder, certificate }
    }

    /// The certificate that a new handshake shows.
    async fn shown(&self) -> Vec<u8> {
        let stream = Hello::offering(&[b"http/1.1"]).connect(self.gateway.address).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().expect("a certificate");
        shown[0].to_vec()
    }

    async fn until_shown(&self, certificate: &Certificate) {
        soon("the new certificate", async {
            while self.shown().await != certificate.der {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_to_new_handshakes_and_old_connections_live_on() {
    let filed = Filed::start();
    let gateway = &filed.gateway;
    let backend = Backend::demo(&filed.gateway).await;
    let mut visitor = H1::connect(gateway).await;
    let tunnels: Vec<_> = gateway.pool.all().iter().map(|tunnel| tunnel.id).collect();
    assert_eq!(filed.shown().await, filed.certificate.der);
    let renewed = Certificate::of(&["example.test"]);
    renewed.write(&filed.folder);
    gateway.order(Order::Reload);
    filed.until_shown(&renewed).await;
    visitor.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 200);
    let after: Vec<_> = gateway.pool.all().iter().map(|tunnel| tunnel.id).collect();
    assert_eq!(tunnels, after, "the same tunnels");
    drop(backend);
}

/// Nobody gives an order; the gateway looks by itself, well within a minute.
#[tokio::test]
async fn a_replaced_certificate_is_noticed_without_an_order() {
    let filed = Filed::start();
    let renewed = Certificate::of(&["example.test"]);
    // In two steps, as a program that isn't careful does it: between them the halves don't fit.
    filed.folder.write("cert.pem", &renewed.cert);
    assert_eq!(filed.shown().await, filed.certificate.der);
    filed.folder.write("key.pem", &renewed.key);
    filed.until_shown(&renewed).await;
}

#[tokio::test]
async fn a_bad_replacement_keeps_the_old_certificate_and_does_not_hold_up_the_keys() {
    let other = Certificate::of(&["example.test"]);
    let expired = Certificate::with(&["example.test"], |params| {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    });
    let bad: [(&str, &str); 4] =
        [("", ""), ("garbage", "garbage"), (&other.cert, "-"), (&expired.cert, &expired.key)];
    let filed = Filed::start();
    for (cert, key) in bad {
        let backend = Backend::demo(&filed.gateway).await;
        filed.folder.write("cert.pem", cert);
        if key != "-" {
            filed.folder.write("key.pem", key);
        }
        // That the files were read again shows in what becomes of the other one.
        filed.folder.write("tokens", Token::generate().public().to_string());
        filed.gateway.order(Order::Reload);
        filed.gateway.until_tunnels(0).await;
        assert_eq!(filed.shown().await, filed.certificate.der, "{cert:?}");
        backend.ended().await.expect_err("its key was withdrawn");
        filed.folder.write("tokens", filed.gateway.token.public().to_string());
        filed.gateway.order(Order::Reload);
        // The order is carried out some time after this; until then backends are refused.
        until_admitted(&filed.gateway).await;
    }
}

async fn until_admitted(gateway: &GatewayBox) {
    use tokio::io::AsyncReadExt;
    soon("the token's return", async {
        loop {
            let hello = Hello::backend(&gateway.token, "probe.0");
            if let Ok(mut stream) = hello.connect(gateway.address).await
                && stream.read_exact(&mut [0; 24]).await.is_ok()
            {
                return;
            }
        }
    })
    .await;
}

/// The tunnels of the others live on, and what runs on the withdrawn ones finishes.
#[tokio::test]
async fn a_withdrawn_key_drains_its_tunnels_and_no_others() {
    let filed = Filed::start();
    let other = Token::generate();
    let both =
        format!("\u{feff}# two\r\n{}\r\n\r\n{}\r\n", other.public(), filed.gateway.token.public());
    filed.folder.write("tokens", both);
    filed.gateway.order(Order::Reload);
    let _stays = Backend::demo(&filed.gateway).await;
    let mut config = filed.gateway.client_config();
    config.token = Some(other.clone());
    let goes = Backend::start(config, ptth_client::demo::Demo);
    filed.gateway.until_tunnels(4).await;
    filed.folder.write("tokens", filed.gateway.token.public().to_string());
    filed.gateway.order(Order::Reload);
    filed.gateway.until_tunnels(2).await;
    let stopped = goes.ended().await.expect_err("a refusal");
    assert!(stopped.to_string().contains("doesn't know this token"), "{stopped}");
    for _ in 0..20 {
        assert_eq!(H1::get(&filed.gateway, "/").await.status, 200);
    }
    for bad in ["", "# nobody\n", "garbage"] {
        filed.folder.write("tokens", bad);
        filed.gateway.order(Order::Reload);
        let renewed = Certificate::of(&["example.test"]);
        renewed.write(&filed.folder);
        filed.gateway.order(Order::Reload);
        filed.until_shown(&renewed).await;
        filed.gateway.until_tunnels(2).await;
    }
}

#[tokio::test]
async fn a_bad_certificate_or_token_file_at_start_refuses_to_start() {
    let folder = Folder::new();
    let good = Certificate::of(&["example.test"]);
    let other = Certificate::of(&["example.test"]);
    let (cert, key) = good.write(&folder);
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let other_key = folder.write("other.pem", &other.key).display().to_string();
    let garbage = folder.write("garbage.pem", "garbage").display().to_string();
    let empty = folder.write("empty", "").display().to_string();
    let missing = folder.path("missing").display().to_string();
    let bad = [
        (vec!["--cert", &cert, "--key", &other_key], "isn't the key of the certificate"),
        (vec!["--cert", &garbage, "--key", &key], "holds no certificate"),
        (vec!["--cert", &key, "--key", &cert], "swap them"),
        (vec!["--cert", &cert, "--key", &missing], "can't be read"),
        (vec!["--cert", &cert, "--key", &key, "--token-file", &garbage], "garbage.pem"),
        (vec!["--cert", &cert, "--key", &key, "--token-file", &empty], "empty"),
        (vec!["--cert", &cert, "--key", &key, "--token-file", &missing], "can't be read"),
    ];
    for (arguments, why) in bad {
        let arguments = [&arguments[..], &["--listen", "127.0.0.1:0"]].concat();
        let output = run("2ptth-server", &arguments, &[]).await;
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(1), ""),
            "{arguments:?} {output:?}"
        );
        let lines: Vec<_> = output.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "one sentence: {lines:?}");
        assert!(lines[0].starts_with("2ptth-server: ") && lines[0].contains(why), "{lines:?}");
    }
}

/// SIGHUP is the order.
#[tokio::test]
async fn a_hangup_signal_makes_the_real_gateway_read_its_files_again() {
    let gateway = Gateway::start(&[]).await;
    let renewed = Certificate::of(&["example.test"]);
    gateway.replace(&renewed);
    gateway.process.signal("HUP");
    gateway.process.logs("certificate and tokens are up to date").await;
    let stream = Hello::offering(&[b"h2"]).connect(gateway.address).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec(), renewed.der);
}
