//! Door B, by backends written by hand.

mod admitted;
mod beside;
mod client;
mod embed;
mod grants;
mod late;
mod registration;
mod tenants;

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ptth_server::config::{Config, NameGrant, Names, Route, WhenTaken};
use ptth_server::lab::{Credential, Files, Settings};
use ptth_test::peer::Peer;
use ptth_test::visitor::connect_from;
use ptth_test::{GatewayBox, H1, soon};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, join, split};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A credential as the configuration file writes it.
fn credential(text: &str) -> Arc<dyn Credential> {
    let settings: Settings = toml::from_str(text).expect("a credential");
    settings.load(&mut Files::new(".")).expect("a usable one")
}

/// The bearer token `secret`, hashed.
fn bearer(secret: &str) -> Arc<dyn Credential> {
    let digest = ptth_link::crypto::hex(&ptth_link::crypto::sha256(secret.as_bytes()));
    credential(&format!("bearer_sha256 = \"{digest}\""))
}

/// Two routes, `blog.example.test` and `shop.example.test`, each with a secret of its name; the second
/// isn't taken from who has it. And dynamic names under `tunnel.example.test`.
fn two_routes(config: &mut Config) {
    let hosts = |host: &str| vec![host.parse().expect("a host")];
    let mut blog = Route::new("blog", hosts("blog.example.test"));
    blog.allow = Some(vec![bearer("blog-secret")]);
    let mut shop = Route::new("shop", hosts("shop.example.test"));
    shop.allow = Some(vec![bearer("shop-secret")]);
    shop.when_taken = WhenTaken::Reject;
    config.routes = vec![blog, shop];
    let bob = vec!["bob".to_owned()];
    let grant = NameGrant { names: Some(bob), credential: bearer("bob-secret") };
    config.names = Some(Names::new("tunnel.example.test", vec![grant]));
}

/// The head of a registration.
fn registration(list: &str, fields: &str) -> String {
    format!(
        "GET /.well-known/ptth/{list}/ HTTP/1.1\r\nHost: example.test:8443\r\nConnection: upgrade\r\n\
         Upgrade: ptth\r\nALPN: h2\r\n{fields}\r\n"
    )
}

/// A connection for it, each of another address of the loopback network: failures are counted by address.
async fn knock(gateway: &GatewayBox) -> H1<TlsStream<TcpStream>> {
    static NEXT: AtomicU32 = AtomicU32::new(u32::from_be_bytes([127, 0, 1, 1]));
    let own = NEXT.fetch_add(1, Ordering::Relaxed).into();
    let dialled = connect_from(own, gateway.address, &[b"http/1.1"]);
    H1::over(soon("a connection", dialled).await.expect("TLS"))
}

/// The backend's end of a connection whose roles are transposed.
async fn transposed(
    mut door: H1<TlsStream<TcpStream>>,
) -> Peer<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    let unread = Cursor::new(door.take_unread());
    let (read, write) = split(door.stream);
    Peer::answering(join(unread.chain(read), write), &[]).await
}

/// The same, up.
async fn answering(
    door: H1<TlsStream<TcpStream>>,
) -> Peer<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    let mut backend = transposed(door).await;
    // The gateway's own PING came before this answer, and was answered.
    backend.ping().await;
    backend
}
