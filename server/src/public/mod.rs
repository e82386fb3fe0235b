//! Visitors: their wire on one side, an exchange on the other.
//!
//! `h1` and `h2` mirror each other; what they share is here: what a request must look like before it
//! may cross, and what the visitor is told when it can't.

mod check;
mod guard;
mod h1;
mod h2;
mod stall;
pub mod strict;
mod upgrade;

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use log::debug;
use ptth_link::headers::{self, Origination};
use ptth_link::shutdown::Shutdown;

use crate::error::{ExchangeError, RequestId};
use crate::forward::Way;

pub use self::h1::serve as serve_h1;
pub use self::h2::serve as serve_h2;

/// One visitor's connection, as its exchanges need to know it.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// Where it comes from.
    pub address: IpAddr,
    /// The name it called in its ClientHello, for a request that names no host.
    pub sni: Option<String>,
    /// The way to the tunnels.
    pub way: Way,
    /// Makes request ids unguessable.
    pub seed: u64,
    /// The end of the process.
    pub shutdown: Shutdown,
}

impl Visitor {
    /// Makes a checked head fit to cross: target, hygiene, identity. `version` is Via's.
    fn prepare(
        &self,
        head: &mut Parts,
        version: &'static str,
        id: RequestId,
    ) -> Result<(), ExchangeError> {
        let host = check::target(head, self.sni.as_deref())?;
        let from = Origination { address: self.address, host: &host, version };
        headers::request(&mut head.headers, from);
        if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
            head.headers.insert("2ptth-request-id", id);
        }
        Ok(())
    }

    /// The page for a failure, which is logged here and nowhere else.
    fn page(
        &self,
        err: &ExchangeError,
        request: &http::HeaderMap,
        id: RequestId,
    ) -> Response<String> {
        debug!("exchange: {id} failed status={} visitor={}: {err}", err.status(), self.address);
        err.page(request, id)
    }
}

/// A final response must be one (RFC 9110 §15); and what it says about hops stays behind.
fn admit<B>(response: &mut Response<B>) -> Result<(), ExchangeError> {
    let status = response.status();
    if !(StatusCode::OK.as_u16()..600).contains(&status.as_u16()) {
        return Err(ExchangeError::Backend("a status that no final response can have"));
    }
    headers::response(response.headers_mut());
    Ok(())
}
