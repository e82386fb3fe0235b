//! What is shown at the door: read anew each time, renewed when it has expired, and seen by nobody else.

use ptth_test::Folder;

use super::*;

fn unauthorized() -> String {
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n2ptth-reason: expired\r\nContent-Length: 0\r\n\r\n".to_owned()
}

fn shown(head: &str) -> String {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization:"));
    line.unwrap_or_default().split_once(": ").unwrap_or_default().1.to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changed_is_read_again_at_once_and_then_on_every_dial() {
    let folder = Folder::new();
    let path = folder.write("authorization", "\u{feff}old\r\n");
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    let (told, mut story) = story();
    front(&fake, &tls, &told, move |head, n| match n {
        0 => {
            assert_eq!(shown(head), "Bearer old");
            folder.write("authorization", "Basic bmV3\n");
            unauthorized()
        }
        1 => {
            assert_eq!(shown(head), "Basic bmV3");
            folder.write("authorization", "newer");
            unauthorized()
        }
        2 => {
            assert_eq!(shown(head), "Bearer newer");
            OPEN.to_owned()
        }
        _ => panic!("a dial too many"),
    });
    let mut config = config(&tls);
    config.authorization = Some(Authorization::File(path));
    let _guest = Guest::start(&process(config), fake.clone(), Demo);
    next(&mut story).await;
    let begun = Instant::now();
    next(&mut story).await;
    assert!(begun.elapsed() < Duration::from_millis(100), "at once: {:?}", begun.elapsed());
    next(&mut story).await;
    assert_eq!(next(&mut story).await, POSSIBLE);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_did_not_change_is_a_refusal() {
    let folder = Folder::new();
    let path = folder.write("authorization", "old");
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    let (told, _story) = story();
    front(&fake, &tls, &told, |_, _| unauthorized());
    let mut config = config(&tls);
    config.authorization = Some(Authorization::File(path));
    let guest = Guest::start(&process(config), fake.clone(), Demo);
    let stopped = guest.ended().await.expect_err("a refusal");
    assert!(matches!(&stopped, Stopped::Refused(DialError::Denied(_), _)), "{stopped:?}");
    assert!(stopped.to_string().ends_with("401 Unauthorized, \"expired\""), "{stopped}");
    assert_eq!(fake.dialled().len(), 1);
}

/// What was good once and has expired is renewed sooner or later; and what a front says for a while isn't
/// the gateway's word. Whoever was let in before goes on trying.
#[tokio::test(start_paused = true)]
async fn who_was_let_in_before_outlasts_an_expired_file_and_a_front_that_says_no() {
    let folder = Folder::new();
    let path = folder.write("authorization", "old");
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    let (told, mut story) = story();
    let (acceptor, renewed) = (tls.clone(), path.clone());
    fake.put(PLACE, move |io, n| {
        let (tls, told, renewed) = (acceptor.clone(), told.clone(), renewed.clone());
        async move {
            let Ok(stream) = tls.accept(io).await else { return };
            let mut stream = BufWriter::new(stream);
            let head = read_head(&mut stream).await;
            let answer = match n {
                0 => OPEN.to_owned(),
                1..=6 => unauthorized(),
                7..=9 => "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nWAF\n".to_owned(),
                10 => {
                    std::fs::write(&renewed, "new").expect("it can be written");
                    unauthorized()
                }
                _ => {
                    assert_eq!(shown(&head), "Bearer new");
                    OPEN.to_owned()
                }
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer == OPEN {
                // The first one doesn't last.
                let lasts = Duration::from_secs(if n == 0 { 1 } else { 3600 });
                let _ = tokio::time::timeout(lasts, ask(stream, told)).await;
                return;
            }
            let _ = stream.shutdown().await;
        }
    });
    let mut config = config(&tls);
    config.authorization = Some(Authorization::File(path));
    let _guest = Guest::start(&process(config), fake.clone(), Demo);
    for _ in 0..2 {
        assert_eq!(later(&mut story).await, POSSIBLE);
    }
}

/// A file that is missing for a while is being replaced, or the disk is late: the client waits.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_gone_is_waited_for() {
    let folder = Folder::new();
    let path = folder.path("authorization");
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    let (told, mut story) = story();
    front(&fake, &tls, &told, |_, _| OPEN.to_owned());
    let mut config = config(&tls);
    config.authorization = Some(Authorization::File(path));
    let _guest = Guest::start(&process(config), fake.clone(), Demo);
    sleep(Duration::from_secs(600)).await;
    assert!(fake.dialled().is_empty(), "nothing to show, nobody to ask");
    folder.write("authorization", "here");
    assert_eq!(shown(&next(&mut story).await), "Bearer here");
}

/// A fresh token at each dial; one that isn't taken is followed by another, ever more slowly.
#[tokio::test]
async fn a_command_is_asked_for_each_dial() {
    let folder = Folder::new();
    let count = folder.path("count").display().to_string();
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    let (told, mut story) = story();
    front(&fake, &tls, &told, |head, _| match shown(head).as_str() {
        "Bearer token-3" => OPEN.to_owned(),
        _ => unauthorized(),
    });
    let mut config = config(&tls);
    let command = format!("echo >>{count}; echo token-$(wc -l <{count})");
    config.authorization = Some(Authorization::Command(command));
    let _guest = Guest::start(&process(config), fake.clone(), Demo);
    for n in 1..=3 {
        assert_eq!(shown(&next(&mut story).await), format!("Bearer token-{n}"));
    }
    assert_eq!(next(&mut story).await, POSSIBLE);
}
