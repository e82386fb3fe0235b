//! What was counted, and what there is now, as text for Prometheus.
//!
//! Gauges of what the process knows anyway are read when they are asked for, and counted nowhere else.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use ptth_link::count::PARTIES;
use ptth_link::failure::Failure;
use ptth_link::metrics::{self, Collects, Encoder, counter, counters, gauge, seconds};

use crate::observe::{Counts, Refusal};
use crate::shard::Shared;

/// Content-Type and text, as [`metrics::page`].
pub fn page(shared: &Arc<Shared>, accept: Option<&HeaderValue>) -> (&'static str, String) {
    metrics::page("ptth", Scrape(shared.clone()), shared.observe.started, accept)
}

#[derive(Debug)]
struct Scrape(Arc<Shared>);

impl Collects for Scrape {
    fn encode(&self, mut encoder: Encoder<'_>) -> fmt::Result {
        exchanges(&mut encoder, &self.0.observe.counts)?;
        tunnels(&mut encoder, &self.0)?;
        state(&mut encoder, &self.0)
    }
}

fn exchanges(encoder: &mut Encoder<'_>, counts: &Counts) -> fmt::Result {
    let routes = counts.routes();
    let exchanges = routes.iter().flat_map(|route| {
        let name = if route.name.is_empty() { "other" } else { &route.name };
        let labels = move |class, party| [("route", name), ("class", class), ("party", party)];
        route.exchanges.read().map(move |(class, party, count)| (labels(class, party), count))
    });
    counters(
        encoder,
        "exchanges",
        "Exchanges that ended, by configured route, status class and party at fault",
        exchanges,
    )?;
    let failures = Failure::ALL.iter().zip(&counts.failures);
    let failures = failures.map(|(failure, count)| ([("code", failure.code())], count.get()));
    let help = "Requests that the gateway or a client answered by itself, by code";
    counters(encoder, "failures", help, failures)?;
    let help = "What was refused, by the reason";
    counters(encoder, "refusals", help, refusals(counts).map(|(why, n)| ([("reason", why)], n)))?;
    let directions = ["in", "out"].into_iter().zip(&counts.bytes);
    let directions = directions.map(|(name, count)| ([("direction", name)], count.get()));
    counters(encoder, "bytes", "Bytes of bodies, from visitors and to them", directions)?;
    let sides = PARTIES.iter().zip(&counts.broken).skip(1);
    let sides = sides.map(|(party, count)| ([("party", *party)], count.get()));
    let help = "Transfers that ended before their end, by the party at fault";
    counters(encoder, "transfers_broken", help, sides)?;
    let sides = PARTIES.iter().zip(&counts.stalls).filter(|(party, _)| STALLING.contains(party));
    let sides = sides.map(|(party, count)| ([("party", *party)], count.get()));
    let help = "Times that a body waited for an HTTP/2 window, by the party that didn't grant it";
    counters(encoder, "window_stalls", help, sides)?;
    seconds(encoder, "queue_seconds", "From a request's head to its stream", &counts.queue)?;
    let help = "From a request's head to the response's head";
    seconds(encoder, "response_head_seconds", help, &counts.head)?;
    let help = "From the response's head to the end";
    seconds(encoder, "transfer_seconds", help, &counts.transfer)
}

/// The parties whose windows a body may wait for.
const STALLING: [&str; 2] = ["visitor", "backend"];

/// The failures that are refusals, and what was refused without a page.
fn refusals(counts: &Counts) -> impl Iterator<Item = (&'static str, u64)> {
    let before = |what: Refusal| counts.refusals.get(what as usize).map_or(0, |it| it.get());
    let mut reasons = [
        ("admission", before(Refusal::Admission)),
        ("quota", 0),
        ("gate", 0),
        ("limit", before(Refusal::Connections)),
    ];
    for (failure, count) in Failure::ALL.iter().zip(&counts.failures) {
        let reason = match failure {
            Failure::Registration
            | Failure::Credential
            | Failure::Forbidden
            | Failure::Taken
            | Failure::Attempts
            | Failure::Tunnels
            | Failure::Authorizer => "admission",
            Failure::Streams | Failure::Backlog => "quota",
            Failure::Connections | Failure::BodySlow => "limit",
            other if other.code().starts_with("E-GATE") => "gate",
            _ => continue,
        };
        let of = reasons.iter_mut().filter(|(name, _)| *name == reason);
        of.for_each(|(_, sum)| *sum += count.get());
    }
    reasons.into_iter()
}

fn tunnels(encoder: &mut Encoder<'_>, shared: &Shared) -> fmt::Result {
    let (counts, tunnels) = (&shared.observe.counts, shared.registry.all());
    let streams: usize = tunnels.iter().map(|tunnel| tunnel.in_flight()).sum();
    gauge(encoder, "tunnels", "Tunnels that are up", tunnels.len())?;
    gauge(encoder, "streams", "Streams that are open on them", streams)?;
    let longest = tunnels.iter().filter_map(|tunnel| tunnel.pulse.round_trip()).max();
    let help = "The longest round trip of a tunnel";
    let longest = longest.unwrap_or_default().as_secs_f64();
    gauge(encoder, "tunnel_round_trip_seconds", help, longest)?;
    counter(encoder, "tunnels_opened", "Tunnels that came up", counts.opened.get())?;
    let ends = counts.ends().into_iter().map(|(why, count)| ([("why", why)], count));
    counters(encoder, "tunnels_ended", "Tunnels that came up and are over, by the reason", ends)
}

fn state(encoder: &mut Encoder<'_>, shared: &Shared) -> fmt::Result {
    let help = "Connections of visitors and backends";
    gauge(encoder, "connections", help, shared.connections.held().0)?;
    let help = "Bytes that bodies under way hold";
    gauge(encoder, "budget_held_bytes", help, shared.budget.held())?;
    let (webhooks, bytes) = shared.outbox.held();
    gauge(encoder, "webhooks_pending", "Requests to be delivered", webhooks)?;
    gauge(encoder, "webhooks_pending_bytes", "Bytes of their bodies", bytes)?;
    let counts = shared.outbox.counts();
    let results = [
        ("queued", counts.queued),
        ("refused", counts.refused),
        ("delivered", counts.delivered),
        ("retried", counts.retried),
        ("dropped", counts.dropped),
    ];
    let results = results.into_iter().map(|(result, count)| ([("result", result)], count));
    counters(encoder, "webhooks", "What became of such requests", results)?;
    let Some(expiry) = shared.tls.terms().into_iter().map(|(_, ends)| ends).min() else {
        return Ok(());
    };
    let help = "When the first of the certificates in use expires";
    gauge(encoder, "certificate_expiry_timestamp_seconds", help, expiry)
}
