//! Metrics as text for Prometheus, for both programs.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeMetric, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use crate::count::Seconds;

pub use prometheus_client::collector::Collector as Collects;
pub use prometheus_client::encoding::DescriptorEncoder as Encoder;

/// Content-Type and text of what is collected, each name with `prefix_` in front: OpenMetrics where the Accept field names
/// it.
pub fn page(
    prefix: &str,
    collects: impl Collector,
    began: SystemTime,
    accept: Option<&HeaderValue>,
) -> (&'static str, String) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process(began)));
    registry.sub_registry_with_prefix(prefix).register_collector(Box::new(collects));
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

/// A value that there is now.
///
/// # Errors
/// Those of the formatter.
pub fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

/// A count without labels.
///
/// # Errors
/// Those of the formatter.
pub fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(encoder)
}

/// Counts by their labels.
///
/// # Errors
/// Those of the formatter.
pub fn counters<'a, const N: usize>(
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

/// A histogram of times.
///
/// # Errors
/// Those of the formatter.
pub fn seconds(
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
