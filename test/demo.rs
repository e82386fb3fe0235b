//! `cargo demo`: the whole of 2ptth on loopback, step by step.
//!
//! A gateway and a client with its built-in origin run in this process; one HTTP/1.1 and one HTTP/2
//! request go through them. It stays until Ctrl-C; `--once` ends it after the requests.
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::process::ExitCode;

use bytes::Bytes;
use http::Request;
use ptth_link::shutdown::{self, Signal};
use ptth_test::{Backend, GatewayBox, H1, connect_h2, soon};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

fn main() -> ExitCode {
    let once = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--once" => true,
        _ => {
            println!("usage: cargo demo [--once]");
            return ExitCode::FAILURE;
        }
    };
    let (stop, stopped) = mpsc::unbounded_channel();
    let watch = shutdown::watch_signals(move |signal| {
        if signal == Signal::Stop {
            let _ = stop.send(());
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match (watch, runtime) {
        (Ok(()), Ok(runtime)) => {
            runtime.block_on(demo(once, stopped));
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

async fn demo(once: bool, mut stopped: mpsc::UnboundedReceiver<()>) {
    let gateway = GatewayBox::start();
    let port = gateway.address.port();
    println!("1. The gateway listens on {}, with a certificate made just now.", gateway.address);
    let answer = H1::get(&gateway, "/").await;
    println!("   A visitor comes too early: {} {}", answer.status, first_line(&answer.text()));

    let _backend = Backend::demo(&gateway).await;
    let tunnels = gateway.pool.all().len();
    println!(
        "2. The client dials the gateway (TCP and TLS, ALPN \"2ptth\") and proves its token's key."
    );
    println!("   {tunnels} tunnels are up. It dialled, and yet from here on it is asked:");
    println!("   the gateway speaks as HTTP/2's client, the client as HTTP/2's server.");

    let answer = H1::get(&gateway, "/").await;
    println!("3. GET / over HTTP/1.1: {} {}", answer.status, first_line(&answer.text()));
    println!("   visitor ─HTTP/1.1─> gateway ─stream on the tunnel─> client ─> demo origin");

    let mut tasks = JoinSet::new();
    let (status, text) = soon("the response", get_h2(&gateway, &mut tasks)).await;
    println!("4. GET / over HTTP/2:   {status} {}", first_line(&text));
    if once {
        return;
    }
    println!(
        "5. Open https://localhost:{port}/ or /events (your browser warns: nobody vouches for this"
    );
    println!("   certificate). Ctrl-C ends it.");
    let _ = stopped.recv().await;
}

async fn get_h2(gateway: &GatewayBox, tasks: &mut JoinSet<()>) -> (u16, String) {
    let mut sender = connect_h2(gateway, tasks).await;
    let request = Request::get("https://example.test/").body(()).expect("a request");
    let (response, _) = sender.send_request(request, true).expect("a stream");
    let (head, mut body) = response.await.expect("a response").into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data: Bytes = data.expect("the body");
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    (head.status.as_u16(), String::from_utf8_lossy(&bytes).into_owned())
}

fn first_line(text: &str) -> String {
    format!("{:?}", text.lines().next().unwrap_or_default())
}
