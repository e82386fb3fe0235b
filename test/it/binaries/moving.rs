//! What people had before they came: gateways behind their own TLS, several of them from one client, and
//! configuration by the environment alone.

use ptth_test::process::{Gateway, Process, run};
use ptth_test::{Folder, H1, soon};
use tokio::net::TcpStream;

use super::answer;

/// The address that a gateway without TLS prints.
async fn plain(gateway: &Process) -> String {
    let line = gateway.says("plain HTTP on ").await;
    line.rsplit_once(' ').unwrap().1.trim_start_matches("http://").to_owned()
}

/// One behind a terminator of one's own, by upgrade and by extended CONNECT, and another one with TLS; each service has
/// its own credential.
#[tokio::test]
async fn each_service_may_have_a_gateway_of_its_own() {
    let folder = Folder::new();
    folder.write("secret", "s3cret");
    let routes = "plain = \"127.0.0.1:0\"\n[[route]]\nallow = [{ bearer_file = \"secret\" }]\n";
    let file = folder.write("gateway.toml", routes).display().to_string();
    let near = Process::start("2ptth-server", &["--config", &file], &[]);
    let near_address = plain(&near).await;
    let far = Gateway::start(&[]).await;
    folder.write("token", far.token.reveal());
    for via in ["auto", "upgrade", "connect"] {
        let text = format!(
            "[[service]]\ngateway = \"http://{near_address}\"\nvia = \"{via}\"\n\
             authorization_file = \"secret\"\norigin = \"127.0.0.1:9\"\n\
             [[service]]\ngateway = \"{}\"\ninsecure = true\ntoken_file = \"token\"\norigin = \"127.0.0.1:9\"\n",
            far.address
        );
        let file = folder.write("client.toml", text).display().to_string();
        let client = Process::start("2ptth-client", &["--config", &file], &[]);
        client.says(&format!("1 http://{near_address}/ -> http://127.0.0.1:9")).await;
        client.says(&format!("2 https://127.0.0.1:{}/ -> ", far.address.port())).await;
        // Both are there, and say that nobody listens behind them.
        let mut visitor = H1::over(TcpStream::connect(&near_address).await.unwrap());
        visitor.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let text = soon("an answer", visitor.answer()).await.text();
        assert!(text.contains("is not listening"), "{via}: {text}");
        assert!(answer(far.address).await.1.contains("is not listening"), "{via}");
        client.signal("TERM");
        assert_eq!(client.ended().await.code, Some(0), "{via}");
    }
}

/// Before a reload or a restart: whether it would succeed, without a port being taken.
#[tokio::test]
async fn a_configuration_is_checked_without_a_start() {
    let folder = Folder::new();
    let gateway = Gateway::start(&[]).await;
    let listen = gateway.address.to_string();
    let file = folder.write("good.toml", "self_signed = true\n").display().to_string();
    let output =
        run("2ptth-server", &["--config", &file, "--listen", &listen, "--check"], &[]).await;
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    assert_eq!(output.stdout, "the configuration can be used\n");
    for (text, why) in [
        ("cert = 'none.pem'\nkey = 'none.key'\n", "none.pem"),
        ("self_signed = true\nbad = 1\n", "bad.toml:2:1"),
        ("self_signed = true\n[[route]]\nallow = [{ bearer_file = 'none' }]\n", "none"),
    ] {
        let file = folder.write("bad.toml", text).display().to_string();
        let output = run("2ptth-server", &["--config", &file, "--check"], &[]).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains(why), "{output:?}");
    }
}
