//! A bound on what one backend can have the gateway do for nothing.

use std::io;
use std::task::Context;

use ptth_link::h2::cork::Watch;
use ptth_link::limits::PING_INTERVAL;
use tokio::time::Instant;

use crate::frames::{ACK, GOAWAY, SETTINGS, Walk};

/// Watches a tunnel's connection. SETTINGS and GOAWAY have h2 look at every stream of the connection (RFC 9113
/// §6.9.2, §6.8), thousands for a frame of fifteen bytes, while all others on the thread wait: a read fails after
/// [`MOST`] of them in one PING interval.
#[derive(Debug)]
pub(super) struct Costly {
    walk: Walk,
    came: u32,
    since: Instant,
}

impl Default for Costly {
    fn default() -> Self {
        Self { walk: Walk::default(), came: 0, since: Instant::now() }
    }
}

impl Watch for Costly {
    fn came(&mut self, _: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(head) = self.walk.next(&mut bytes) {
            let costs = head.kind == GOAWAY || head.kind == SETTINGS && head.flags & ACK == 0;
            if !costs {
                continue;
            }
            if self.since.elapsed() >= PING_INTERVAL {
                (self.came, self.since) = (0, Instant::now());
            }
            self.came += 1;
        }
        match self.came <= MOST {
            true => Ok(()),
            false => Err(io::Error::other("SETTINGS or GOAWAY again and again")),
        }
    }
}

/// With the 4,096 streams that a backend gets at most they take a hundredth of a core. Our client sends one for each
/// change of its window: ten wider ones in this time, and some narrower ones after each.
const MOST: u32 = 500;
