//! User and password in front of a route.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ptth_test::{Ask, Dialect, H1, H2, soon};
use tokio::task::JoinSet;

use super::{World, is_page};

const GATE: &str = "[route.gate]\nbasic = { user = 'team', password_file = 'secret' }";
/// `team` and `pâss:wörd`, in UTF-8.
pub(super) const RIGHT: &str = "Basic dGVhbTpww6Jzczp3w7ZyZA==";

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[tokio::test]
async fn a_password_is_asked_for_and_kept_from_the_origin() {
    let world = World::new("", GATE).await;
    assert_eq!(basic("team:pâss:wörd"), RIGHT);
    for dialect in Dialect::BOTH {
        let refused = world.ask(dialect, &Ask::get("/")).await;
        is_page(&refused, 401, "E-GATE-PASSWORD");
        assert_eq!(refused.field("www-authenticate"), "Basic realm=\"2ptth\", charset=\"UTF-8\"");
        let head = world.ask(dialect, &Ask::new("HEAD", "/")).await;
        assert_eq!((head.status, head.body.len()), (401, 0));
        assert!(world.seen().is_empty());
        let fine = world.ask(dialect, &Ask::get("/").with("authorization", RIGHT)).await;
        assert_eq!(fine.text(), "fine");
        let seen = world.seen();
        assert!(seen.len() == 1 && seen[0].values("authorization").is_empty());
    }
}

/// Malformed, twice, huge, or just wrong: the same answer, and nothing reaches the origin.
#[tokio::test]
async fn what_is_no_right_password_is_refused() {
    let world = World::new("", GATE).await;
    let huge = basic(&format!("team:{}", "x".repeat(20_000)));
    let wrong = [
        "Basic".to_owned(),
        "Basic =".to_owned(),
        "Basic dGVhbTp*".to_owned(),
        "Bearer dGVhbTpww6Jzczp3w7ZyZA==".to_owned(),
        format!("{RIGHT}, {RIGHT}"),
        format!("{RIGHT}x"),
        STANDARD.encode("team:pâss:wörd"),
        basic("team"),
        basic("team:"),
        basic(":pâss:wörd"),
        basic("team:pâss:wörd\n"),
        huge,
    ];
    for (n, wrong) in wrong.iter().enumerate() {
        // Each from an address of its own, since failures of one address add up.
        let from = format!("192.0.2.{n}");
        let answer = world.get(&[("x-forwarded-for", &from), ("authorization", wrong)]).await;
        is_page(&answer, 401, "E-GATE-PASSWORD");
    }
    let twice = world.get(&[("authorization", RIGHT), ("authorization", RIGHT)]).await;
    is_page(&twice, 401, "E-GATE-PASSWORD");
    assert!(world.seen().is_empty());
}

/// bcrypt as `htpasswd -B` writes it, argon2 as a PHC string, and a plain one.
#[tokio::test]
async fn users_of_a_file_come_in_by_their_hashes() {
    let world = World::new("", HASHES).await;
    for (user, password, fine) in [
        ("ann", "open sesame", true),
        ("ann", "open sesame ", false),
        ("bob", "hunter42", true),
        ("bob", "hunter43", false),
        ("cid", "plain text", true),
        ("cid", "open sesame", false),
        ("dan", "open sesame", false),
    ] {
        let shown = basic(&format!("{user}:{password}"));
        let answer = world.get(&[("authorization", &shown)]).await;
        assert_eq!(answer.status, if fine { 200 } else { 401 }, "{user} {password}");
        assert_eq!(world.seen().len(), usize::from(fine));
    }
}

const HASHES: &str = "[route.gate]\nbasic = { htpasswd_file = 'users' }";
/// Made by `htpasswd -B -C 4` and `argon2 … -id -t 1 -m 5 -p 1 -e`, which cost little.
pub(super) const USERS: &str = "# team\nann:$2y$04$8OKOjn.QuO/MzIVn9QdZ9eZ/oS2EYdWPXB1JE1SxKVLt4ji7wacL.\n\nbob:$argon2id$v=19$m=32,t=1,p=1$c2FsdHNhbHQx$2m85Jk9J8S4eUs/E45bV4sMK2adA0fnUGDVIZQdKNjw\ncid:plain text\n";

#[tokio::test]
async fn guesses_slow_their_address_down() {
    let world = World::new("", GATE).await;
    let guess = async |from: &str, shown: &str| {
        world.get(&[("x-forwarded-for", from), ("authorization", shown)]).await
    };
    let wrong = basic("team:wrong");
    let mut statuses = Vec::new();
    // A handful is free, then each waits longer than the last, until there is no waiting any more.
    for _ in 0..20 {
        let answer = guess("192.0.2.1", &wrong).await;
        statuses.push(answer.status);
        if answer.status == 429 {
            is_page(&answer, 429, "E-GATE-RATE");
            assert!(answer.field("retry-after").parse::<u64>().unwrap() >= 1);
            break;
        }
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert!(statuses.len() > 5 && statuses[..5] == [401; 5], "{statuses:?}");
    assert_eq!(guess("192.0.2.2", RIGHT).await.status, 200, "another address");
    assert_eq!(guess("192.0.2.1", RIGHT).await.status, 200, "what is known to be right");
    assert_eq!(world.seen().len(), 2);
}

/// All at once, while the first is judged: the others wait for it, and count as no guesses.
#[tokio::test]
async fn a_page_of_a_hundred_requests_is_no_flood_of_guesses() {
    let world = World::new("", HASHES).await;
    let visitor = Arc::new(H2::connect(world.gateway()).await);
    let shown = basic("ann:open sesame");
    let mut page = JoinSet::new();
    for _ in 0..100 {
        let (visitor, ask) = (visitor.clone(), Ask::get("/").with("authorization", &shown));
        page.spawn(async move { visitor.ask(&ask).await.status });
    }
    let statuses = soon("the page", page.join_all()).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

/// A visitor that leaves while its password is judged leaves nothing behind.
#[tokio::test]
async fn visitors_that_leave_while_they_are_judged_hold_up_no_other() {
    let world = World::new("", HASHES).await;
    for n in 0..50 {
        let shown = basic(&format!("ann:guess {n}"));
        let mut visitor = H1::connect(world.gateway()).await;
        let from = format!("192.0.2.{n}");
        let head = format!(
            "GET / HTTP/1.1\r\nHost: example.test\r\nX-Forwarded-For: {from}\r\nAuthorization: {shown}\r\n\r\n"
        );
        visitor.send(head).await;
    }
    let shown = basic("ann:open sesame");
    assert_eq!(world.get(&[("authorization", &shown)]).await.status, 200);
}
