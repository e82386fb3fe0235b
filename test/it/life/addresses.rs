//! A gateway's name with several addresses: tunnels to each, as they come and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ptth_client::Stopped;
use ptth_client::config::{Config, Trust};
use ptth_client::demo::Demo;
use ptth_link::token::Token;
use ptth_server::config::Admission;
use ptth_test::Fake;
use ptth_test::fake::splice;
use ptth_test::room::{Guest, Room, process};
use ptth_test::wire::Road;
use tokio::time::{Instant, sleep};

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 443))
}

/// A gateway at that address, which admits this token.
fn room(fake: &Fake, n: u8, token: &Token) -> Arc<Room> {
    let admission = Admission::Keys { keys: vec![token.public()], file: None, made: None };
    let room = Arc::new(Room::with(|config| config.admission = admission));
    settle(fake, n, &room);
    room
}

fn settle(fake: &Fake, n: u8, room: &Room) {
    let network = room.network(Road::default());
    fake.put(&address(n).to_string(), move |io, _| {
        let network = network.clone();
        async move { splice(io, network.open().0).await }
    });
}

fn config(room: &Room, token: &Token) -> Config {
    let mut config = room.client_config();
    config.trust = Trust::Insecure;
    config.token = Some(token.clone());
    config.all_addresses = true;
    config
}

/// Tunnels are where the name leads, and nowhere else.
#[tokio::test(start_paused = true)]
async fn each_address_gets_its_tunnels_and_those_that_leave_lose_them() {
    let (fake, token) = (Fake::default(), Token::generate());
    let [one, two, three] = [1, 2, 3].map(|n| room(&fake, n, &token));
    fake.resolve(&[address(1), address(2)]);
    let guest = Guest::start(&process(config(&one, &token)), fake.clone(), Demo);
    one.until_tunnels(2).await;
    two.until_tunnels(2).await;
    assert!(three.live().is_empty());
    // In whatever order they come.
    fake.resolve(&[address(3), address(2)]);
    let begun = Instant::now();
    three.until_tunnels(2).await;
    assert!(begun.elapsed() <= Duration::from_secs(31), "{:?}", begun.elapsed());
    assert_eq!(one.live().len(), 2, "visitors may know it for a while");
    sleep(Duration::from_secs(100)).await;
    assert!(one.pool().all().is_empty(), "let go, in order");
    assert_eq!((two.live().len(), three.live().len()), (2, 2));
    assert_eq!(fake.dialled().len(), 6, "nobody was dialled twice: {fake:?}");
    guest.stop();
    guest.ended().await.expect("an orderly end");
    for room in [two, three] {
        room.until_tunnels(0).await;
    }
}

/// One gateway with two addresses knows four tunnels by four names.
#[tokio::test(start_paused = true)]
async fn the_tunnels_of_one_process_never_share_a_name() {
    let (fake, token) = (Fake::default(), Token::generate());
    let one = room(&fake, 1, &token);
    settle(&fake, 2, &one);
    fake.resolve(&[address(1), address(2)]);
    let process = process(config(&one, &token));
    let _guest = Guest::start(&process, fake.clone(), Demo);
    one.until_tunnels(4).await;
    let mut names: Vec<_> = one.live().iter().map(|t| t.identity.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 4, "{names:?}");
}

/// A name that isn't known yet, for longer than any back-off takes.
#[tokio::test(start_paused = true)]
async fn a_name_without_addresses_is_looked_up_until_it_has_some() {
    let (fake, token) = (Fake::default(), Token::generate());
    let one = room(&fake, 1, &token);
    let _guest = Guest::start(&process(config(&one, &token)), fake.clone(), Demo);
    sleep(Duration::from_secs(200)).await;
    fake.resolve(&[address(1)]);
    let back = Instant::now();
    one.until_tunnels(2).await;
    assert!(back.elapsed() <= Duration::from_secs(2), "{:?}", back.elapsed());
    // A name server that is away for a while takes no tunnel away.
    fake.resolve(&[]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(one.live().len(), 2);
    assert_eq!(fake.dialled().len(), 2);
}

/// A gateway that moves is found before the next regular look.
#[tokio::test(start_paused = true)]
async fn a_failed_dial_has_the_name_looked_up_again() {
    let (fake, token) = (Fake::default(), Token::generate());
    let one = room(&fake, 1, &token);
    fake.resolve(&[address(1)]);
    let _guest = Guest::start(&process(config(&one, &token)), fake.clone(), Demo);
    one.until_tunnels(2).await;
    let two = room(&fake, 2, &token);
    fake.clear(&address(1).to_string());
    fake.resolve(&[address(2)]);
    sleep(Duration::from_secs(3)).await;
    assert!(two.live().is_empty(), "no reason to look yet");
    drop(one);
    let back = Instant::now();
    two.until_tunnels(2).await;
    assert!(back.elapsed() <= Duration::from_secs(4), "{:?}", back.elapsed());
}

/// One machine that says no, as in the midst of an update, takes nobody from the others.
#[tokio::test(start_paused = true)]
async fn one_gateway_that_refuses_does_not_end_the_others_and_is_asked_again() {
    let (fake, token) = (Fake::default(), Token::generate());
    let one = room(&fake, 1, &token);
    let _other = room(&fake, 2, &Token::generate());
    fake.resolve(&[address(1), address(2)]);
    let guest = Guest::start(&process(config(&one, &token)), fake.clone(), Demo);
    one.until_tunnels(2).await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(one.live().len(), 2);
    let asked = fake.dialled().iter().filter(|to| **to == address(2).to_string()).count();
    assert!((5..=30).contains(&asked), "now and then: {asked}");
    let updated = room(&fake, 2, &token);
    sleep(Duration::from_secs(62)).await;
    assert_eq!(updated.live().len(), 2);
    drop(guest);
    // But where all say no, that's it.
    let guest = Guest::start(&process(config(&one, &Token::generate())), fake.clone(), Demo);
    let stopped = guest.ended().await.expect_err("a refusal");
    assert!(matches!(stopped, Stopped::Refused(..)), "{stopped:?}");
}

/// The addresses that were dialled so far.
fn dialled(fake: &Fake) -> BTreeSet<String> {
    fake.dialled().into_iter().collect()
}

/// A name server must not make a client dial thousands.
#[tokio::test(start_paused = true)]
async fn no_more_than_64_addresses_get_tunnels_and_the_log_says_so() {
    let said = warnings();
    let (fake, token) = (Fake::default(), Token::generate());
    let one = room(&fake, 1, &token);
    let addresses: Vec<_> = (1..=100).map(address).collect();
    fake.resolve(&addresses);
    let mut config = config(&one, &token);
    config.tunnels = 1;
    let guest = Guest::start(&process(config.clone()), fake.clone(), Demo);
    one.until_tunnels(1).await;
    sleep(Duration::from_secs(70)).await;
    let expected: BTreeSet<_> = (1..=64).map(|n| address(n).to_string()).collect();
    assert_eq!(dialled(&fake), expected, "the first of them, and always the same");
    let told = "dial: the gateway has 100 addresses; only the first 64 get tunnels";
    let count = said.lock().unwrap().iter().filter(|line| *line == told).count();
    assert!((1..=2).contains(&count), "once a minute at most: {count}");
    drop(guest);

    // With other ones in each answer.
    let fake = Fake::default();
    let _guest = Guest::start(&process(config), fake.clone(), Demo);
    for second in 0..=10 {
        let fresh = |n| SocketAddr::from(([198, 18, second, n], 443));
        fake.resolve(&(1..=100).map(fresh).collect::<Vec<_>>());
        sleep(Duration::from_secs(1)).await;
    }
    assert!((1..=64).contains(&dialled(&fake).len()), "{}", dialled(&fake).len());
    sleep(Duration::from_secs(70)).await;
    let (last, now) = (SocketAddr::from(([198, 18, 10, 1], 443)).to_string(), dialled(&fake));
    assert!(now.contains(&last), "those that are gone make room");
}

/// The warnings of this process from now on.
fn warnings() -> Arc<Mutex<Vec<String>>> {
    let said = Arc::<Mutex<Vec<String>>>::default();
    log::set_boxed_logger(Box::new(Warnings(said.clone()))).expect("the only logger");
    log::set_max_level(log::LevelFilter::Warn);
    said
}

struct Warnings(Arc<Mutex<Vec<String>>>);

impl log::Log for Warnings {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}
