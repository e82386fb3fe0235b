//! Gateway, backend, origin and visitors in a box, on loopback.
//!
//! Nothing here waits for a time to pass: one waits for an event, under [`DEADLINE`], which means
//! "stuck" and not "slow".

pub mod asking;
pub mod backend;
pub mod chunks;
pub mod dice;
pub mod fake;
pub mod files;
pub mod frames;
pub mod gateway;
pub mod h2;
pub mod hello;
pub mod lab;
pub mod manual;
pub mod origin;
pub mod peer;
pub mod process;
pub mod room;
pub mod routes;
pub mod server;
pub mod service;
pub mod upgraded;
pub mod visitor;
pub mod wire;

use std::future::Future;
use std::time::Duration;

pub use backend::Backend;
pub use chunks::Chunks;
pub use dice::Dice;
pub use fake::Fake;
pub use files::{Certificate, Folder};
pub use gateway::{GatewayBox, until_registered};
pub use h2::{Ask, Dialect, H2};
pub use hello::Hello;
pub use lab::Lab;
pub use origin::OriginBox;
pub use peer::Peer;
pub use room::{Guest, Room};
pub use server::ServerProcess;
pub use visitor::{Answer, H1, connect, connect_h2, connect_to};
pub use wire::Wire;

/// Far beyond anything that these tests do on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `future`, and panics if it hangs.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("stuck: {what}"),
    }
}
