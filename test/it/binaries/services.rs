//! Several services from one client, and where they say that visitors find them.

use std::path::Path;

use ptth_link::crypto;
use ptth_link::token::Token;
use ptth_server::config::Admission;
use ptth_test::process::Process;
use ptth_test::{Folder, GatewayBox, H1, OriginBox, soon};
use tokio::io::AsyncWriteExt;

/// A gateway that admits two tokens.
fn admitting(tokens: &[&Token; 2]) -> GatewayBox {
    let keys = tokens.map(Token::public).to_vec();
    GatewayBox::with(|config| {
        config.admission = Admission::Keys { keys, file: None, made: None };
    })
}

async fn origin(text: &'static str) -> OriginBox {
    OriginBox::raw(move |mut socket, _| async move {
        while !ptth_test::origin::read_head(&mut socket).await.is_empty() {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    })
    .await
}

/// A client of two services at two origins; the first has a tunnel, the second two.
fn client(
    folder: &Folder,
    gateway: &GatewayBox,
    tokens: &[&Token; 2],
    origins: &[&OriginBox; 2],
) -> Process {
    folder.write("blog.token", tokens[0].reveal());
    folder.write("shop.token", tokens[1].reveal());
    let pin = crypto::pin_text(&gateway.pin);
    let file = format!(
        "gateway = \"{}\"\npin = \"{pin}\"\ntunnels = 1\nurl-file = \"urls\"\n\
         [[service]]\nhost = \"blog.test\"\norigin = \"{}\"\ntoken_file = \"blog.token\"\n\
         [[service]]\nhost = \"shop.test\"\norigin = \"{}\"\ntoken_file = \"shop.token\"\ntunnels = 2\n",
        gateway.address, origins[0].address, origins[1].address
    );
    let file = folder.write("client.toml", file).display().to_string();
    Process::start("2ptth-client", &["--config", &file], &[])
}

async fn holds(path: &Path, text: &str) {
    let read = async {
        while std::fs::read_to_string(path).unwrap_or_default() != text {
            tokio::task::yield_now().await;
        }
    };
    soon("the file of --url-file", read).await;
}

/// Each has its own tunnels and token, and what is printed says whose it is.
#[tokio::test]
async fn one_client_holds_the_tunnels_of_several_services() {
    let tokens = [&Token::generate(), &Token::generate()];
    let gateway = admitting(&tokens);
    let (blog, shop) = (origin("from the blog").await, origin("from the shop").await);
    let folder = Folder::new();
    let client = client(&folder, &gateway, &tokens, &[&blog, &shop]);
    gateway.until_tunnels(3).await;
    for label in ["blog.test/0 up", "shop.test/0 up", "shop.test/1 up"] {
        client.logs(&format!("tunnel: {label}")).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let text = H1::get(&gateway, "/").await.text();
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    client.says(" blog.test GET \"/\" 200 13 B").await;
    client.says(" shop.test GET \"/\" 200 13 B").await;
    // Nobody announced anything, so these are guesses.
    let guesses = ["blog.test", "shop.test"]
        .map(|host| (host, format!("https://{host}:{}/", gateway.address.port())));
    for (host, guess) in &guesses {
        client.says(&format!(" {host} {guess} -> http://")).await;
    }
    let lines: String = guesses.iter().map(|(_, guess)| format!("{guess}\n")).collect();
    holds(&folder.path("urls"), &lines).await;
    assert!(!client.said().contains(tokens[0].reveal().trim_start_matches("2ptth_")));
    client.signal("TERM");
    assert_eq!(client.ended().await.code, Some(0));
}

/// Who is refused takes nobody along, and is told of.
#[tokio::test]
async fn a_service_that_is_refused_leaves_the_others() {
    let (known, stranger) = (Token::generate(), Token::generate());
    let gateway = admitting(&[&known, &known]);
    let (blog, shop) = (origin("from the blog").await, origin("from the shop").await);
    let folder = Folder::new();
    let client = client(&folder, &gateway, &[&known, &stranger], &[&blog, &shop]);
    let line = client.logs("client: service=\"shop.test\" gateway=").await;
    assert!(line.contains("doesn't know this token"), "{line}");
    gateway.until_tunnels(1).await;
    assert_eq!(H1::get(&gateway, "/").await.text(), "from the blog");
    client.signal("TERM");
    let output = client.ended().await;
    assert_eq!(output.code, Some(77), "{output:?}");
    assert_eq!(output.stderr.matches(" ends: the gateway refuses").count(), 1, "said once");
}

#[tokio::test]
async fn a_client_none_of_whose_services_is_admitted_ends() {
    let gateway = GatewayBox::start();
    let folder = Folder::new();
    let (blog, shop) = (origin("").await, origin("").await);
    let tokens = [&Token::generate(), &Token::generate()];
    let output = client(&folder, &gateway, &tokens, &[&blog, &shop]).ended().await;
    assert_eq!(output.code, Some(77), "{output:?}");
    assert!(!folder.path("urls").exists());
}
