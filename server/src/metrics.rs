//! What was counted, and what there is now, as text for Prometheus.
//!
//! Gauges of what the process knows anyway are read when they are asked for, and counted nowhere else.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeMetric, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use ptth_link::failure::Failure;

use crate::observe::{CLASSES, Counts, PARTIES, Refusal, Seconds};
use crate::shard::Shared;

/// Content-Type and text, OpenMetrics where the Accept field names it.
pub fn page(shared: &Arc<Shared>, accept: Option<&HeaderValue>) -> (&'static str, String) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process(shared.observe.started)));
    registry.sub_registry_with_prefix("ptth").register_collector(Box::new(Scrape(shared.clone())));
    let open = accept.and_then(|accept| accept.to_str().ok());
    let open = open.is_some_and(|accept| accept.contains("application/openmetrics-text"));
    let mut page = String::new();
    // A String takes all that is written.
    let _ = match open {
        true => text::encode(&mut page, &registry),
        false => prometheus_text::encode(&mut page, &registry),
    };
    (if open { OPENMETRICS } else { TEXT }, page)
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// When this process began.
#[derive(Debug)]
struct Process(SystemTime);

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let began = self.0.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        gauge(&mut encoder, "process_start_time_seconds", "When this process began", began)
    }
}

#[derive(Debug)]
struct Scrape(Arc<Shared>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        exchanges(&mut encoder, &self.0.observe.counts)?;
        tunnels(&mut encoder, &self.0)?;
        state(&mut encoder, &self.0)
    }
}

fn exchanges(encoder: &mut DescriptorEncoder<'_>, counts: &Counts) -> fmt::Result {
    let routes = counts.routes();
    let exchanges = routes.iter().flat_map(|route| {
        let name = if route.name.is_empty() { "other" } else { &route.name };
        let classes = CLASSES.iter().zip(&route.exchanges);
        classes.flat_map(move |(class, parties)| {
            let parties = PARTIES.iter().zip(parties);
            parties.map(move |(party, count)| {
                ([("route", name), ("class", *class), ("party", *party)], count.get())
            })
        })
    });
    let exchanges = exchanges.filter(|(_, count)| *count > 0);
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

fn tunnels(encoder: &mut DescriptorEncoder<'_>, shared: &Shared) -> fmt::Result {
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

fn state(encoder: &mut DescriptorEncoder<'_>, shared: &Shared) -> fmt::Result {
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

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(encoder)
}

fn counters<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = ([(&'a str, &'a str); N], u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn seconds(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    seconds: &Seconds,
) -> fmt::Result {
    let (sum, buckets) = seconds.read();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}
