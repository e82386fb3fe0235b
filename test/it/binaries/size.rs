//! How much memory the two programs take while nothing is to be done.

use ptth_test::process::{Gateway, Process};

use super::answer;

/// Resident memory, in KiB.
fn resident(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Idle, each of the two fits in 15 MiB; a debug build only prints.
#[tokio::test]
async fn idle_programs_are_small() {
    let gateway = Gateway::start(&[]).await;
    let client = gateway.client(&[]);
    gateway.process.logs(" up name=").await;
    assert_eq!(answer(gateway.address).await.0, 200);
    let (gateway, client) = (resident(&gateway.process), resident(&client));
    println!("resident: gateway {gateway} KiB, client {client} KiB");
    if !cfg!(debug_assertions) {
        assert!(gateway < 15 * 1024 && client < 15 * 1024, "{gateway} KiB, {client} KiB");
    }
}
