//! What was counted, and what there is now, as text for Prometheus.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use ptth_link::metrics::{self, Collects, Encoder, counter, counters, gauge, seconds};

use crate::journal::Counts;
use crate::shown::Shown;

/// Content-Type and text, as [`metrics::page`].
pub(crate) fn page(
    counts: &Arc<Counts>,
    shown: &Shown,
    began: SystemTime,
    accept: Option<&HeaderValue>,
) -> (&'static str, String) {
    let scrape = Scrape(counts.clone(), shown.clone());
    metrics::page("ptth_client", scrape, began, accept)
}

#[derive(Debug)]
struct Scrape(Arc<Counts>, Shown);

impl Collects for Scrape {
    fn encode(&self, mut encoder: Encoder<'_>) -> fmt::Result {
        let Self(counts, shown) = self;
        let encoder = &mut encoder;
        let exchanges = counts.exchanges.read();
        let exchanges =
            exchanges.map(|(class, party, count)| ([("class", class), ("party", party)], count));
        let help = "Exchanges that ended, by status class and party at fault";
        counters(encoder, "exchanges", help, exchanges)?;
        let help = "From a request's head to the response's head";
        seconds(encoder, "response_head_seconds", help, &counts.head)?;
        let help = "From the response's head to the end";
        seconds(encoder, "transfer_seconds", help, &counts.transfer)?;
        let help = "Bytes of the bodies of whole responses";
        counter(encoder, "response_bytes", help, counts.bytes.get())?;
        let (answering, all) = shown.count(None);
        let help = "Tunnels whose gateway answers PINGs";
        gauge(encoder, "tunnels", help, answering)?;
        gauge(encoder, "tunnels_wanted", "Tunnels that are to be up", all)?;
        let (longest, opened, lost) = shown.sums();
        let help = "The longest round trip of a tunnel";
        gauge(encoder, "tunnel_round_trip_seconds", help, longest.as_secs_f64())?;
        counter(encoder, "tunnels_opened", "Tunnels that came up", opened)?;
        let lost = lost.into_iter().map(|(why, count)| ([("why", why)], count));
        let help = "Tunnels that were lost, and dials that failed, by the reason";
        counters(encoder, "tunnels_lost", help, lost)
    }
}
