//! How many files and sockets this process may have open.

use crate::limits::TUNNEL_STREAMS;

/// The soft limit; the usual one where `/proc` is absent, since every other way needs unsafe code.
pub fn limit() -> usize {
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
    #[test]
    fn this_process_has_a_limit() {
        assert!(super::limit() >= 64);
    }

    #[test]
    fn tunnels_share_the_descriptors() {
        for (limit, tunnels, expected) in
            [(1024, 2, 480), (1024, 1, 960), (65_536, 2, 2048), (64, 2, 16), (0, 0, 16)]
        {
            assert_eq!(super::streams(limit, tunnels), expected, "{limit} {tunnels}");
        }
    }
}
