//! The numbers that both ends of a tunnel must agree on, each with its reason.

use std::time::Duration;

use crate::budget::CEILING;

/// Streams that a backend lets the gateway open at once on one tunnel (SETTINGS_MAX_CONCURRENT_STREAMS).
/// Libraries default to 100–200, which two hundred open WebSockets use up.
pub const TUNNEL_STREAMS: u32 = 2048;

/// A PING is sent this often; a peer from which not one byte came for two intervals is dead.
/// Two of them stay under the 30 s after which people reload a page.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How long a tunnel that was replaced may take to answer one PING before it counts as dead.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The kernel gives up on a tunnel's unacknowledged bytes after this long; its own default is 15 minutes.
/// Both ends always read, so a window that is shut for this long is a sign of death, too.
pub const TUNNEL_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that may wait unsent in the kernel: PING and heads queue behind them.
pub const TCP_NOTSENT_LOWAT: u32 = 128 * 1024;

/// Header list of one request or response on a tunnel: what the visitor may send (32 KiB) plus what the
/// gateway adds, and as much for an origin's cookies.
pub const TUNNEL_HEADER_LIST: u32 = 128 * 1024;

/// Flow-control window of a whole tunnel. The budget of [`crate::h2::window`] bounds what streams hold;
/// this one only has to be larger than any such sum, or one stalled stream would block all.
pub const TUNNEL_CONNECTION_WINDOW: u32 = (CEILING * BODY_BUDGET) as u32;

/// Bytes that h2 keeps for one stream because the socket is busy. Enough for a full TLS record more than
/// the kernel takes at once; the visitors' windows, not this, carry the bandwidth-delay product.
pub const SEND_BUFFER: usize = 64 * 1024;

/// Bytes that the requests and responses of one process may hold for readers that are slower than
/// their senders. See [`crate::h2::window`].
pub const BODY_BUDGET: usize = 64 * 1024 * 1024;

/// Informational responses (1xx) before a final one. They have no flow control, so more of them than any use
/// needs are a flood, and end the exchange.
pub const INFORMATIONAL_RESPONSES: usize = 10;

/// Public addresses of one tunnel in the answer to a client: a service has a few, and thousands don't fit into a head.
pub const ANNOUNCED_URLS: usize = 64;

/// Digits of a Content-Length, leading zeros included, as the h2 crate limits them.
pub const LENGTH_DIGITS: usize = 19;

/// Bytes a second of the slowest visitor that is no attack, while the gateway waits for its body or for its reads
/// (close to Apache's mod_reqtimeout).
pub const SLOWEST_RATE: u32 = 240;

/// The soft limit; the usual one where `/proc` is absent, since every other way needs unsafe code.
pub fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(USUAL)
}

/// Requests at a time for each of so many tunnels. Each may need a descriptor, and one visitor's hanging requests must
/// leave some for the others.
pub fn streams(limit: usize, tunnels: usize) -> u32 {
    let each = limit.saturating_sub(SPARE) / tunnels.max(1);
    u32::try_from(each).unwrap_or(u32::MAX).clamp(FEWEST, TUNNEL_STREAMS)
}

const USUAL: usize = 1024;
/// For the tunnels, their successors, listeners, files.
const SPARE: usize = 64;
/// With any number of descriptors.
const FEWEST: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_limit() {
        assert!(descriptors() >= 64);
    }

    #[test]
    fn tunnels_share_the_descriptors() {
        for (limit, tunnels, expected) in
            [(1024, 2, 480), (1024, 1, 960), (65_536, 2, 2048), (64, 2, 16), (0, 0, 16)]
        {
            assert_eq!(streams(limit, tunnels), expected, "{limit} {tunnels}");
        }
    }
}
