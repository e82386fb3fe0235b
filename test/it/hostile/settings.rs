//! A backend that hears and doesn't obey.

use std::time::Duration;

use ptth_server::auth::Identity;
use ptth_test::Lab;
use ptth_test::peer::*;
use tokio::time::Instant;

use super::until;

/// RFC 9113 §6.5.3: what doesn't acknowledge a smaller window won't keep to it.
#[tokio::test(start_paused = true)]
async fn a_backend_that_ignores_settings_is_dropped_though_it_answers_pings() {
    let mut lab = Lab::default();
    // Another make is never told of a smaller one.
    let ours = Identity { ours: true, ..Identity::default() };
    let mut backend = lab.backend_as(ours, &[(MAX_CONCURRENT_STREAMS, 1000)]).await;
    backend.polite = false;
    lab.spawn(async move {
        while let Some(came) = backend.any().await {
            if came.kind == PING && came.flags & ACK == 0 {
                backend.send(frame(PING, ACK, 0, &came.payload)).await;
            }
        }
    });
    let mut visitors = Vec::new();
    for streams in [400, 800] {
        while visitors.len() < streams {
            let mut visitor = lab.h1();
            visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            visitors.push(visitor);
        }
        // The window follows the number of streams, and is told at once.
        let busy = || lab.pool.all().iter().any(|tunnel| tunnel.in_flight() >= streams);
        until(busy).await;
    }
    let start = Instant::now();
    lab.pool.until(|tunnels| tunnels.is_empty()).await;
    assert!(start.elapsed() <= Duration::from_secs(62), "{:?}", start.elapsed());
}
