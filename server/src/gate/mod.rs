//! The gate of a route: what a visitor's request must pass before anything of it reaches a backend.
//!
//! In:  a request whose route was found and whose fields were cleaned, and its visitor's address.
//! Out: the same request with the fields that the operator sets; or why it is refused; or the response of the
//! operator's authenticator in its place.
//!
//! Invariant: the checks that cost least come first, and a request that one of them refuses costs nothing further.

mod basic;
mod body;
mod forward;
mod rate;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Response};
use ipnet::IpNet;
use ptth_link::headers;
use tokio::sync::Semaphore;

use crate::config::{Changes, Gate as Settings};

use basic::Passwords;
use rate::Rates;

pub(crate) use basic::challenge;
pub(crate) use body::limited;

/// Why a request doesn't pass; with each, what the log says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("its address isn't let in")]
    Address,
    /// The seconds until the next request.
    #[error("{1}")]
    Rate(u64, &'static str),
    #[error("its body is too large")]
    Body,
    #[error("{0}")]
    Password(&'static str),
    #[error("the authenticator can't be asked: {0}")]
    Forward(String),
}

/// The gate of one route, with what it remembers of visitors.
#[derive(Debug)]
pub(crate) struct Gate {
    settings: Settings,
    rates: Option<Rates>,
    passwords: Option<Passwords>,
    /// Questions to the authenticator at a time.
    questions: Semaphore,
}

impl Gate {
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            rates: settings.rate.map(Rates::new),
            passwords: settings.basic.as_ref().map(|users| Passwords::new(users)),
            questions: Semaphore::new(QUESTIONS),
            settings: settings.clone(),
        })
    }

    pub(crate) fn is_of(&self, settings: &Settings) -> bool {
        self.settings == *settings
    }

    /// Judges a request, and changes its fields. A response is the authenticator's refusal, for the visitor. Cancel safe.
    ///
    /// # Errors
    /// The first check that it doesn't pass.
    pub(crate) async fn check(
        &self,
        head: &mut Parts,
        visitor: IpAddr,
    ) -> Result<Option<Response<Bytes>>, Refused> {
        let Settings { allow, deny, max_body, forward, request_headers, .. } = &self.settings;
        let outside = allow.as_ref().is_some_and(|allow| !has(allow, visitor));
        if outside || has(deny, visitor) {
            return Err(Refused::Address);
        }
        if let Some(rates) = &self.rates {
            let wait = rates.take(visitor).map_err(|wait| wait.as_secs_f64().ceil() as u64);
            wait.map_err(|seconds| Refused::Rate(seconds.max(1), "too many requests"))?;
        }
        if max_body.is_some_and(|most| declared(&head.headers) > most) {
            return Err(Refused::Body);
        }
        if let Some(passwords) = &self.passwords {
            passwords.check(&mut head.headers, visitor).await?;
        }
        if let Some(forward) = forward
            && let Some(response) = forward::ask(forward, head, &self.questions).await?
        {
            return Ok(Some(response));
        }
        change(&mut head.headers, request_headers);
        Ok(None)
    }

    /// The most bytes that a request's body may have, to be counted while it moves.
    pub(crate) fn max_body(&self) -> Option<u64> {
        self.settings.max_body
    }

    /// Changes the fields of a backend's response.
    pub(crate) fn respond(&self, fields: &mut HeaderMap) {
        change(fields, &self.settings.response_headers);
    }
}

fn has(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// The length that a request declares, which was checked to be digits; more than fit a number are too many.
fn declared(fields: &HeaderMap) -> u64 {
    let length = fields.get(CONTENT_LENGTH);
    length.map_or(0, |it| it.to_str().ok().and_then(|it| it.parse().ok()).unwrap_or(u64::MAX))
}

fn change(fields: &mut HeaderMap, changes: &Changes) {
    let set = changes.set.iter().map(|(name, _)| name);
    changes.remove.iter().chain(set).for_each(|name| headers::remove(fields, name));
    for (name, value) in &changes.set {
        fields.insert(name.clone(), value.clone());
    }
}

/// More would only queue at the authenticator, each with a socket of ours.
const QUESTIONS: usize = 64;

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Another program that embeds the gateway may tell it either.
    #[tokio::test]
    async fn an_ipv4_address_is_judged_alike_in_both_spellings() {
        let networks = |text: &str| vec![text.parse().unwrap()];
        let (allow, deny) = (Some(networks("203.0.113.0/24")), networks("203.0.113.8/32"));
        let gate = Gate::new(&Settings { allow, deny, ..Settings::default() });
        for (address, fine) in
            [("203.0.113.7", true), ("203.0.113.8", false), ("203.0.114.7", false)]
        {
            for spelt in [address.to_owned(), format!("::ffff:{address}")] {
                let (mut head, ()) = Request::new(()).into_parts();
                let judged = gate.check(&mut head, spelt.parse().unwrap()).await;
                assert_eq!(judged.is_ok(), fine, "{spelt}");
            }
        }
    }
}
