//! The gateway's program with a configuration file: what it prints, and what it never does.

use ptth_test::process::Process;
use ptth_test::{Folder, soon};

/// A gateway whose routes say for themselves whom they admit makes no token, and shows no secret.
#[tokio::test]
async fn a_gateway_of_routes_prints_no_token_and_no_secret() {
    let folder = Folder::new();
    let secret = "a-secret-of-thirty-two-characters";
    folder.write("blog.secret", secret);
    let file = folder.write(
        "server.toml",
        "listen = \"127.0.0.1:0\"\nself-signed = true\nlog = \"trace\"\n\n[[route]]\n\
         hosts = [\"blog.example.test\"]\n[[route.allow]]\nbearer_file = \"blog.secret\"\n",
    );
    let arguments = ["--config".to_owned(), file.display().to_string()];
    let gateway = Process::start("2ptth-server", &arguments, &[]);
    let command = soon("the last line", gateway.says("2ptth-client")).await;
    assert!(command.starts_with("2ptth-client --pin sha256:"), "{command}");
    assert!(command.ends_with("http://localhost:8080"), "{command}");
    gateway.says("what a route or a name of the configuration admits them by").await;
    let said = gateway.said();
    assert!(!said.contains("2ptth_") && !said.contains(secret), "{said}");
}
