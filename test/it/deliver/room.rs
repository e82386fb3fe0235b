//! What is kept is bounded, and nobody takes the room of others.

use super::*;

/// One route that nobody serves, from addresses without number.
#[tokio::test(start_paused = true)]
async fn the_flood_of_one_route_leaves_room_for_the_others() {
    let mut hooks = Hooks::new();
    for n in 0..500 {
        let from = Ipv4Addr::from(0xcb00_7100 + n).into();
        assert_eq!(hooks.post_from(from, "hooks.test", "/", b"x").await.status, 202, "{n}");
    }
    let refused = hooks.post("hooks.test", "/", b"x").await;
    assert_eq!(refused.status, 503);
    assert!(!refused.field("retry-after").is_empty());
    assert!(refused.text().contains("Too many requests wait"), "{}", refused.text());
    assert_eq!(hooks.post("other.test", "/", b"x").await.status, 202);
    assert_eq!(hooks.counts(), Counts { queued: 501, refused: 1, ..Counts::default() });
    // What is delivered makes room.
    let (_guest, mut seen) = hooks.backend(&[]).await;
    for _ in 0..501 {
        next(&mut seen).await;
    }
    hooks.until_empty().await;
    assert_eq!(hooks.outbox().held(), (0, 0));
    assert_eq!(hooks.post("hooks.test", "/", b"x").await.status, 202);
}

/// An address, which is a /64 where it is IPv6, spread over routes.
#[tokio::test(start_paused = true)]
async fn the_flood_of_one_address_leaves_room_for_the_others() {
    let mut hooks = Hooks::new();
    for n in 0..500_u16 {
        let from = IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]);
        let host = if n % 2 == 0 { "hooks.test" } else { "other.test" };
        let status = hooks.post_from(from, host, "/", b"x").await.status;
        assert_eq!(status, if n < 400 { 202 } else { status }, "{n}");
    }
    let same = IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]);
    let other = IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 0]);
    assert_eq!(hooks.post_from(same, "hooks.test", "/", b"x").await.status, 503);
    assert_eq!(hooks.post_from(other, "hooks.test", "/", b"x").await.status, 202);
}

/// However large a route's own limit is, and with what is still being read.
#[tokio::test(start_paused = true)]
async fn the_bytes_of_all_bodies_are_bounded() {
    const MIB: usize = 1 << 20;
    let mut hooks = Hooks::with_limit(usize::MAX);
    let body = vec![b'x'; MIB];
    let mut taken = Vec::new();
    for host in ["hooks.test", "other.test"] {
        let mut count = 0;
        while hooks.post(host, "/", &body).await.status == 202 {
            count += 1;
        }
        taken.push(count);
    }
    // Nearly half of 32 MiB, and half of what is left then; each sender has a share of its own.
    assert_eq!(taken, [14, 7]);
    let (requests, bytes) = hooks.outbox().held();
    assert_eq!(requests, 21);
    assert!((21 * MIB..22 * MIB).contains(&bytes), "{bytes}");
    let from = hooks.address();
    let mut visitor = hooks.h1(from);
    visitor
        .send(format!("POST / HTTP/1.1\r\nHost: hooks.test\r\nContent-Length: {}\r\n\r\n", 5 * MIB))
        .await;
    assert_eq!(visitor.answer().await.status, 413, "no route takes more than an eighth");
    let (_guest, mut seen) = hooks.backend(&[]).await;
    for _ in 0..21 {
        assert_eq!(next(&mut seen).await.body.len(), MIB);
    }
    hooks.until_empty().await;
    assert_eq!(hooks.outbox().held(), (0, 0));
}

/// Of one route an address has half of what the route takes, bodies that never come have a bound of their own,
/// and another sender is taken all the while.
#[tokio::test(start_paused = true)]
async fn one_address_keeps_no_route_from_other_senders() {
    let mut hooks = Hooks::new();
    let flood = hooks.address();
    let mut silent = Vec::new();
    for _ in 0..510 {
        let mut visitor = hooks.h1(flood);
        visitor.send("POST / HTTP/1.1\r\nHost: hooks.test\r\nContent-Length: 5\r\n\r\n").await;
        silent.push(visitor);
    }
    assert_eq!(
        hooks.post("hooks.test", "/", b"x").await.status,
        202,
        "beside bodies that never come"
    );
    assert_eq!(hooks.outbox().held().0, 100 + 1, "a quarter of the bodies under way, and that one");
    assert_eq!(hooks.post_from(flood, "hooks.test", "/", b"x").await.status, 503);
    drop(silent);
    let mut taken = 0;
    while hooks.post_from(flood, "hooks.test", "/", b"x").await.status == 202 {
        taken += 1;
    }
    assert!((200..=250).contains(&taken), "{taken}");
    assert_eq!(hooks.post("hooks.test", "/", b"x").await.status, 202, "beside what is kept");
}
