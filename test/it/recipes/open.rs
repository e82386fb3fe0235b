//! 2ptth: an open gateway.

use super::*;

/// With certificate files by their variables, and with a certificate of its own. Node's part is played by our
/// client, which shows no token either.
#[tokio::test]
async fn an_open_gateway_takes_who_comes() {
    let recipe = Recipe::of("(2ptth)");
    let origin = origin("Hello from Node\n").await;
    let lines = recipe.lines("2ptth-server");
    assert!(lines.len() == 2 && lines[0].contains("CERT=") && lines[0].contains("KEY="));
    for line in lines {
        let (gateway, address) = recipe.gateway(line).await;
        let shown = H1::to(address).await.expect("TLS");
        let shown = shown.stream.get_ref().1.peer_certificates().expect("a certificate");
        let own = pin_text(&ptth_link::crypto::sha256(&shown[0])) == recipe.pin;
        assert_eq!(own, line.contains("CERT="), "{line}");
        let backend = ["--insecure", &address.to_string(), &format!("http://{}", origin.address)]
            .map(str::to_owned);
        let _backend = Process::start("2ptth-client", &backend, &[]);
        until_up(&gateway, 1).await;
        shows(recipe.lines("curl")[0], address).await;
    }
}
