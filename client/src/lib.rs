//! The 2ptth client: dials a gateway and answers HTTP/2 on the connection that it opened.
//!
//! ```text
//! retry ─> dial ─(2ptth)─> serve ─> h2 stream ─> origin ─> http://127.0.0.1:8080
//!   ^                        │ connection lost
//!   └────────────────────────┘
//! ```
//!
//! The binary answers from an `origin`; a program of yours answers by itself, with any
//! [`tower_service::Service`], and needs no listening port at all:
//!
//! ```no_run
//! # use ptth_client::{Body, config::{Config, Gateway}};
//! # async fn example<S>(service: S) -> Result<(), Box<dyn std::error::Error>>
//! # where
//! #     S: tower_service::Service<http::Request<Body>, Response = http::Response<String>>
//! #         + Clone + Send + 'static,
//! #     S::Error: std::fmt::Display + Send,
//! #     S::Future: Send,
//! # {
//! let config = Config::new(Gateway::parse("example.com")?);
//! ptth_client::serve(config, service).await?;
//! # Ok(())
//! # }
//! ```

mod complaints;
// Most fields are settings, which docs/configuration.md explains.
#[allow(missing_docs)]
pub mod config;
#[cfg(feature = "metrics")]
mod metrics;
mod retry;
mod tunnels;

// What the program and the tests reach into; no part of the interface.
#[doc(hidden)]
pub mod admin;
#[doc(hidden)]
pub mod announced;
#[doc(hidden)]
pub mod demo;
#[doc(hidden)]
pub mod dial;
#[cfg(feature = "doctor")]
#[doc(hidden)]
pub mod doctor;
#[doc(hidden)]
pub mod inspect;
#[doc(hidden)]
pub mod journal;
#[doc(hidden)]
pub mod origin;
#[doc(hidden)]
pub mod serve;
#[doc(hidden)]
pub mod shown;
#[doc(hidden)]
pub mod tls;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod unit;
#[doc(hidden)]
pub mod watch;

use log::info;
use ptth_link::shutdown;
use tokio::select;

pub use ptth_link::body::Body;
pub use serve::{Answers, Early, Onward};
pub use tunnels::{Process, Stopped};

/// Holds tunnels to a gateway and answers its requests with `service`, until it is dropped. The public
/// addresses that the gateway tells go to the log; `Process::answering` has them for a program.
///
/// An extended CONNECT (RFC 8441; a WebSocket) arrives as such: method CONNECT, and
/// [`h2::ext::Protocol`] among the extensions. A 200 accepts it, and the two bodies are the two
/// directions; the visitor's ends with the answer's unless that has an [`Onward`]. 1xx responses go
/// through [`Early`], found among the extensions, too.
///
/// # Errors
/// [`Stopped`], when the gateway refuses this client or can't be trusted; never because it can't be
/// reached.
pub async fn serve(config: config::Config, service: impl Answers) -> Result<(), Stopped> {
    let process = Process::new(config, journal::Journal::default())?;
    let (_running, shutdown) = shutdown::channel();
    let tell = |_, url: &str| info!("client: public address {url}");
    select! {
        result = process.hold(0..process.slots(), dial::Tcp, service, shutdown) => result,
        () = announced::publish(process.answering.announced.watch(), None, tell) => Ok(()),
    }
}
