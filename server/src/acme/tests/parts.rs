//! The parts by themselves: the schedule, the count of orders, the files, the address that is asked.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use http::Request;
use instant_acme::BodyWrapper;
use rcgen::{CertificateParams, KeyPair};

use super::*;

fn held(begins: i64, ends: i64) -> Held {
    Held { leaf: vec![].into(), begins, ends }
}

#[test]
fn renewals_come_with_a_third_of_the_life_left_or_when_the_directory_suggests() {
    let days = |days: i64| days * 86_400;
    let held = held(0, days(90));
    type Row = (Option<(i64, i64)>, f64, i64);
    let table: [Row; 7] = [
        (None, 0.0, days(60)),
        (None, 1.0, days(57)),
        (Some((days(10), days(12))), 0.0, days(10)),
        (Some((days(10), days(12))), 0.5, days(11)),
        // What makes no sense is bounded.
        (Some((days(100), days(200))), 0.5, days(90) - days(90) / 20),
        (Some((days(12), days(10))), 0.5, days(12)),
        (Some((i64::MAX, i64::MIN)), 0.5, days(90) - days(90) / 20),
    ];
    for (suggested, random, due) in table {
        assert_eq!(schedule::due(&held, suggested, random), due, "{suggested:?} {random}");
    }
}

#[test]
fn pauses_double_and_are_never_shorter_than_what_the_directory_asked_for() {
    let seconds = |fault, failures, after: Option<u64>, random| {
        schedule::pause(fault, failures, after.map(Duration::from_secs), random).as_secs()
    };
    let of = |fault| [1, 2, 3, 9, 99].map(|failures| seconds(fault, failures, None, 0.0));
    assert_eq!(of(Fault::Directory), [5, 10, 20, 1280, 3600]);
    assert_eq!(of(Fault::Order), [180, 360, 720, 21_600, 21_600]);
    assert_eq!(seconds(Fault::Order, 1, None, 1.0), 225, "jitter");
    for random in [0.0, 0.5, 1.0] {
        assert!(seconds(Fault::Directory, 1, Some(7200), random) >= 7200);
    }
    assert_eq!(seconds(Fault::Order, 1, Some(1), 0.0), 180);
    assert_eq!(seconds(Fault::Order, 1, Some(u64::MAX), 0.0), 7 * 86_400);
}

#[test]
fn orders_are_counted_over_a_restart_and_an_hour() {
    let folder = Scratch::new();
    let until = |name: &str, dynamic, now| Orders::load(&folder.0).until(name, dynamic, now);
    let note = |name: &str, dynamic, now| Orders::load(&folder.0).note(name, dynamic, now).unwrap();
    for n in 0..5 {
        let name = format!("n{n}");
        assert_eq!(until(&name, true, 1000 + n), None);
        note(&name, true, 1000 + n);
    }
    assert_eq!(until("n0", true, 1010), Some(4600), "each once");
    assert_eq!(until("n9", true, 1010), Some(4600), "and so many in all");
    assert_eq!(until("n9", false, 1010), None, "the configuration's aren't among them");
    assert_eq!(until("n9", true, 4600), None);
    for _ in 0..4 {
        assert_eq!(until("own", false, 1010), None);
        note("own", false, 1010);
    }
    assert_eq!(until("own", false, 1010), Some(4610));
    assert_eq!(until("n0", true, 500), None, "the clock was set back");
    for broken in ["", "{", "[1]", "\u{0}"] {
        folder.write("orders.json", broken);
        assert_eq!(until("n0", true, 1010), None, "{broken:?}");
        note("n0", true, 1010);
        assert!(until("n0", true, 1010).is_some());
    }
}

/// Chain and key, as an order gives them.
fn pem(name: &str) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    key.serialize_pem() + &certificate.pem()
}

#[test]
fn what_is_issued_is_for_the_owner_alone_and_never_half_there() {
    let folder = Scratch::new();
    let (shared, issuer) = (shared(&folder, &["a.test"]), issuer(&folder));
    let held = || shared.tls.ordered().remove(0).held.map(|held| held.leaf);
    assert!(shared.tls.keep("a.test", &issuer, &pem("a.test")).is_err(), "there is no folder");
    fs::create_dir(&issuer.folder).unwrap();
    let path = issuer.file("a.test");
    for wrong in [pem("b.test"), pem("a.test")[..600].to_owned(), String::new()] {
        assert!(shared.tls.keep("a.test", &issuer, &wrong).is_err());
        assert!(!path.exists() && held().is_none());
    }
    shared.tls.keep("a.test", &issuer, &pem("a.test")).unwrap();
    let first = held().unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(&issuer.folder).unwrap().count(), 1, "nothing is left beside it");
    shared.tls.keep("a.test", &issuer, &pem("b.test")).unwrap_err();
    assert_eq!(held().as_ref(), Some(&first));
    shared.tls.keep("a.test", &issuer, &pem("a.test")).unwrap();
    assert_ne!(held(), Some(first));
}

#[test]
fn a_stored_certificate_that_is_damaged_or_for_another_name_is_not_used() {
    let folder = Scratch::new();
    let issuer = issuer(&folder);
    fs::create_dir(&issuer.folder).unwrap();
    let good = pem("a.test");
    fs::write(issuer.file("a.test"), &good).unwrap();
    let running = shared(&folder, &["a.test"]);
    let held = |it: &Shared| it.tls.ordered().remove(0).held.map(|held| held.leaf);
    let before = held(&running);
    assert!(before.is_some());
    for wrong in [
        String::new(),
        good[..good.len() / 2].to_owned(),
        pem("b.test"),
        pem("a.test")[..99].into(),
    ] {
        fs::write(issuer.file("a.test"), &wrong).unwrap();
        // A gateway that runs keeps what it has; one that starts says what is wrong.
        assert!(running.tls.reload().is_err());
        assert_eq!(held(&running), before);
        let started = shared(&folder, &["a.test"]);
        assert!(held(&started).is_none());
        let warnings = started.tls.warnings();
        assert!(warnings[0].contains("a.test.pem"), "{warnings:?}");
    }
}

#[tokio::test]
async fn no_server_is_asked_but_the_one_that_the_operator_named() {
    let folder = Scratch::new();
    let client = directory::connect(&issuer(&folder), RetryAfter::default()).unwrap();
    for url in
        ["https://other.test/nonce", "http://directory.test/nonce", "https://directory.test:444/"]
    {
        let request = Request::get(url).body(BodyWrapper::default()).unwrap();
        let error = client.request(request).await.err().unwrap().to_string();
        assert!(error.contains("another server"), "{url}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_damaged_or_of_another_directory_is_made_anew() {
    let (folder, fake) = (Scratch::new(), Fake::new());
    let issuer = issuer(&folder);
    fs::create_dir(&issuer.folder).unwrap();
    let path = issuer.folder.join("account.json");
    let account =
        || directory::account(&issuer, fake.connect()(&issuer, RetryAfter::default()).unwrap());
    let made = |asked: Vec<String>| asked.contains(&"POST /account".to_owned());
    account().await.unwrap();
    assert!(made(fake.asked()));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    account().await.unwrap();
    assert!(!made(fake.asked()));
    let good = fs::read_to_string(&path).unwrap();
    for wrong in
        ["", "{}", &good[..good.len() / 2], &good.replace("directory.test/", "other.test/")]
    {
        fs::write(&path, wrong).unwrap();
        account().await.unwrap();
        assert!(made(fake.asked()), "{wrong:?}");
    }
}
