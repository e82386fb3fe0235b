//! What 2ptth must show, in ratios of one run where machines differ, and whether it does.

use crate::results::Results;
use crate::subject::Kind::{self, Direct, Four, Haproxy, One, Ours, Tcp};

/// One target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// What is promised.
    pub(crate) about: &'static str,
    bound: Bound,
    value: Value,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Clone, Copy, Debug)]
enum Value {
    /// Our figure of a workload.
    Figure(&'static str, Kind, &'static str),
    /// It as a multiple of another one's.
    Ratio(&'static str, Kind, &'static str, Kind),
    /// One program's figure as a multiple of another subject's whole.
    Part(&'static str, &'static str, &'static str, Kind),
}

impl Target {
    /// The figure, what it should be, and the verdict. `None` if it wasn't measured.
    pub(crate) fn verdict(&self, results: &Results) -> Option<(String, String, String)> {
        let value = match self.value {
            Value::Figure(workload, kind, figure) => results.median(workload, kind, figure)?.value,
            Value::Ratio(workload, kind, figure, other) => {
                results.ratio(workload, figure, (kind, other))?
            }
            Value::Part(workload, part, whole, other) => {
                results.median(workload, Ours, part)?.value
                    / results.median(workload, other, whole)?.value
            }
        };
        let (text, met, miss) = match self.bound {
            AtMost(most) => (format!("≤ {most}"), value <= most, value / most - 1.0),
            AtLeast(least) => (format!("≥ {least}"), value >= least, 1.0 - value / least),
        };
        let verdict =
            if met { "met".to_owned() } else { format!("missed by {:.0} %", miss * 100.0) };
        let digits = if value >= 100.0 { 0 } else { 2 };
        Some((format!("{value:.digits$}"), text, verdict))
    }
}

const fn ratio(
    about: &'static str,
    bound: Bound,
    workload: &'static str,
    figure: &'static str,
    other: Kind,
) -> Target {
    Target { about, bound, value: Value::Ratio(workload, Ours, figure, other) }
}

const fn far(
    about: &'static str,
    workload: &'static str,
    kind: Kind,
    figure: &'static str,
) -> Target {
    Target { about, bound: AtLeast(0.95), value: Value::Ratio(workload, kind, figure, Tcp) }
}

const fn figure(
    about: &'static str,
    most: f64,
    workload: &'static str,
    figure: &'static str,
) -> Target {
    Target { about, bound: AtMost(most), value: Value::Figure(workload, Ours, figure) }
}

use Bound::{AtLeast, AtMost};

/// In the order of the table.
pub(crate) const TARGETS: &[Target] = &[
    ratio(
        "1 KiB HTTP/2 32×10, CPU a request, × nginx direct",
        AtMost(2.0),
        "h2-32x10",
        "us_request",
        Direct,
    ),
    ratio("the same, × HAProxy", AtMost(0.40), "h2-32x10", "us_request", Haproxy),
    ratio(
        "1 KiB HTTP/1.1 64, CPU a request, × nginx direct",
        AtMost(2.4),
        "h1-64",
        "us_request",
        Direct,
    ),
    ratio("the same, × HAProxy", AtMost(0.58), "h1-64", "us_request", Haproxy),
    Target {
        about: "the gateway alone, HTTP/2 32×10, × nginx direct",
        bound: AtMost(0.65),
        value: Value::Part("h2-32x10", "us_request_gateway", "us_request", Direct),
    },
    ratio(
        "requests a second, HTTP/2 32×10, × nginx direct",
        AtLeast(0.45),
        "h2-32x10",
        "requests_s",
        Direct,
    ),
    ratio(
        "10 MiB downloads, CPU a byte, × nginx direct",
        AtMost(2.3),
        "down-4x4",
        "ns_byte",
        Direct,
    ),
    ratio("the same, × HAProxy", AtMost(0.7), "down-4x4", "ns_byte", Haproxy),
    ratio(
        "10 MiB downloads, bytes a second, × HAProxy",
        AtLeast(1.0),
        "down-4x4",
        "bytes_s",
        Haproxy,
    ),
    ratio("upload, one HTTP/2 stream, × HAProxy", AtLeast(1.3), "up-h2", "bytes_s", Haproxy),
    far("50 ms, 1 Gbit/s, down, 1 tunnel, × plain TCP", "far-50", One, "down_bytes_s"),
    far("50 ms, 1 Gbit/s, up, 1 tunnel, × plain TCP", "far-50", One, "up_bytes_s"),
    far("50 ms, 1 Gbit/s, down, 4 tunnels, × plain TCP", "far-50", Four, "down_bytes_s"),
    far("50 ms, 1 Gbit/s, up, 4 tunnels, × plain TCP", "far-50", Four, "up_bytes_s"),
    far("100 ms, 1 Gbit/s, down, 1 tunnel, × plain TCP", "far-100", One, "down_bytes_s"),
    far("100 ms, 1 Gbit/s, up, 1 tunnel, × plain TCP", "far-100", One, "up_bytes_s"),
    far("100 ms, 1 Gbit/s, down, 4 tunnels, × plain TCP", "far-100", Four, "down_bytes_s"),
    far("100 ms, 1 Gbit/s, up, 4 tunnels, × plain TCP", "far-100", Four, "up_bytes_s"),
    figure("1,000 stalled visitors, MiB more in both", 128.0, "stalled", "grown_mib"),
    figure("1,000 stalled visitors, p99 of others, × before", 2.0, "stalled", "p99_ratio"),
    ratio(
        "1 KiB p99 beside four bulk downloads, × HAProxy",
        AtMost(1.0),
        "beside",
        "p99_us",
        Haproxy,
    ),
    figure("idle visitor connection, KiB", 32.0, "idle", "kib_gateway"),
    figure("active stream, gateway, KiB", 8.0, "streams", "kib_gateway"),
    figure("active stream, client, KiB", 24.0, "streams", "kib_client"),
    figure("gateway at rest, MiB", 12.0, "footprint", "mib_gateway"),
    figure("client at rest, MiB", 12.0, "footprint", "mib_client"),
    figure("gateway's file, MiB", 8.0, "footprint", "mib_gateway_file"),
    figure("client's file, MiB", 8.0, "footprint", "mib_client_file"),
];
