//! Ten thousand routes for one key: what a request, an admission, a look and a reload cost.

use std::fmt::Write as _;
use std::time::Duration;

use ptth_link::token::Token;
use ptth_test::process::{Process, address_of};
use ptth_test::{Folder, H1, soon};
use tokio::time::{Instant, timeout};

/// User and system time of a process so far, in clock ticks of 10 ms.
fn ticks(process: &Process) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn routes(count: usize) -> String {
    let mut text = "self_signed = true\nlisten = [\"127.0.0.1:0\"]\n".to_owned();
    for n in 0..count {
        let _ = write!(text, "[[route]]\nname = \"r{n}\"\nhosts = [\"h{n}.test\"]\n");
    }
    text
}

/// From the client's start to the first response, and the gateway's time for so many requests.
async fn measured(count: usize) -> (Duration, u64) {
    let (folder, token) = (Folder::new(), Token::generate());
    let file = folder.write("gateway.toml", routes(count)).display().to_string();
    let (public, reveal) = (token.public().to_string(), token.reveal());
    let gateway = Process::start("2ptth-server", &["--config", &file], &[("TOKEN", &public)]);
    let address = address_of(&gateway).await;
    let begun = Instant::now();
    let target = address.to_string();
    let client =
        Process::start("2ptth-client", &["--insecure", &target], &[("TOKEN", reveal.as_str())]);
    let mut visitor = H1::to(address).await.unwrap();
    let ask = async |visitor: &mut H1, n: usize| {
        let host = n % count;
        visitor.send(&format!("GET / HTTP/1.1\r\nHost: h{host}.test\r\n\r\n")).await;
        visitor.answer().await.status
    };
    soon("the first response", async { while ask(&mut visitor, 1).await != 200 {} }).await;
    let first = begun.elapsed();
    if count > 64 {
        client.says(&format!("({} more addresses)", count - 64)).await;
    }
    let before = ticks(&gateway);
    for n in 0..REQUESTS {
        assert_eq!(ask(&mut visitor, n).await, 200);
    }
    let spent = ticks(&gateway) - before;
    // Nobody waits while the configuration is exchanged.
    folder.write("gateway.toml", routes(count + 1));
    gateway.signal("HUP");
    let exchanged = async {
        let mut longest = Duration::ZERO;
        loop {
            let asked = Instant::now();
            assert_eq!(ask(&mut visitor, 0).await, 200);
            longest = longest.max(asked.elapsed());
            if gateway.said().contains(&format!("{} routes", count + 1)) {
                return longest;
            }
        }
    };
    let longest = timeout(Duration::from_secs(60), exchanged).await.expect("a new policy");
    println!("{count} routes: first {first:?}, {spent} ticks, reload {longest:?}");
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    (first, spent)
}

const REQUESTS: usize = 1000;

#[tokio::test]
async fn ten_thousand_routes_cost_a_request_nothing() {
    let (_, of_one) = measured(1).await;
    let (first, of_many) = measured(10_000).await;
    assert!(first < Duration::from_secs(10), "{first:?}");
    assert!(of_many < 2 * of_one + 20, "{of_many} and {of_one} ticks");
}
