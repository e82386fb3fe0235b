//! The real client at a front that is none of ours: what it prints, and how it ends.

use ptth_link::crypto::pin_text;
use ptth_test::OriginBox;
use ptth_test::process::Process;

use super::*;

async fn fronted(tls: &Tls, answer: &'static str) -> OriginBox {
    let tls = tls.clone();
    let (told, _) = story();
    OriginBox::raw(move |socket, _| {
        let (tls, told) = (tls.clone(), told.clone());
        async move {
            let Ok(mut stream) = tls.accept(socket).await else { return };
            if read_head(&mut stream).await.is_empty() {
                return;
            }
            let _ = stream.write_all(answer.as_bytes()).await;
            if answer == OPEN {
                return ask(stream, told).await;
            }
            let _ = stream.shutdown().await;
        }
    })
    .await
}

/// It says once that it goes another way; what it shows there is in no log and no argument.
#[tokio::test]
async fn the_real_client_says_once_that_it_goes_by_http() {
    let tls = Tls::speaking(&[b"http/1.1"]);
    let front = fronted(&tls, OPEN).await;
    let (pin, token) = (pin_text(&tls.pin), Token::generate().reveal());
    let arguments = ["--pin", &pin, "--tunnels", "3", "--log", "trace", &front.address.to_string()];
    let variables = [("TOKEN", token.as_str()), ("AUTHORIZATION_COMMAND", "echo c2VjcmV0")];
    let client = Process::start("2ptth-client", &arguments, &variables);
    for n in 0..3 {
        client.logs(&format!("tunnel: {n} up")).await;
    }
    client.signal("TERM");
    let said = client.ended().await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines = said.stderr.lines().filter(|line| line.contains("registered by HTTP instead"));
    assert_eq!(lines.count(), 1, "{}", said.stderr);
    assert!(said.stderr.contains("by=http/1.1"), "{}", said.stderr);
    assert!(!said.stderr.contains("c2VjcmV0") && !said.stdout.contains("c2VjcmV0"), "{said:?}");
}

#[tokio::test]
async fn the_real_client_ends_with_77_and_the_gateways_reason() {
    let tls = Tls::speaking(&[b"http/1.1"]);
    let refusal = "HTTP/1.1 403 Forbidden\r\n2ptth-reason: blog.example.com isn't yours\r\nContent-Length: 0\r\n\r\n";
    let front = fronted(&tls, refusal).await;
    let pin = pin_text(&tls.pin);
    let arguments = ["--pin", &pin, &front.address.to_string()];
    let client = Process::start("2ptth-client", &arguments, &[("AUTHORIZATION", "c2VjcmV0")]);
    let output = client.ended().await;
    assert_eq!(output.code, Some(77), "{output:?}");
    let sentence = format!(
        "2ptth-client: gateway {}: the gateway refuses this client: 403 Forbidden, \"blog.example.com isn't yours\"",
        front.address
    );
    assert!(output.stderr.lines().any(|line| line == sentence), "{output:?}");
    assert!(!output.stderr.contains("c2VjcmV0"));
}
