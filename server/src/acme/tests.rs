//! What is ordered and when, with a directory in memory and a paused clock; and what a validator sees.

mod fake;
mod parts;
mod validator;

use tokio::sync::mpsc;
use tokio::time::advance;

use super::*;
use crate::config::{Admission, CertificateSource, Config};
use crate::tls::testing::Scratch;

use fake::{Answer, DAY, Fake, now};

fn issuer(folder: &Scratch) -> Arc<Issuer> {
    let directory = "https://directory.test/directory".to_owned();
    Arc::new(Issuer { directory, email: None, ca: None, folder: folder.0.join("acme") })
}

fn shared(folder: &Scratch, names: &[&str]) -> Arc<Shared> {
    let source =
        |name: &&str| CertificateSource::Acme { name: (*name).into(), issuer: issuer(folder) };
    let mut config = Config::new(source(&""), Admission::make());
    config.certificates = names.iter().map(source).collect();
    Shared::new(&config, vec![mpsc::unbounded_channel().0]).unwrap()
}

fn issuing(folder: &Scratch, fake: &Fake, names: &[&str]) -> Issuing {
    Issuing::new(shared(folder, names), now, fake.connect())
}

impl Issuing {
    /// Looks as often as there is something to do at once.
    async fn settle(&mut self) {
        while self.look().await <= Instant::now() {}
    }

    fn serial(&self) -> Option<Vec<u8>> {
        let held = self.shared.tls.ordered().into_iter().next().unwrap().held;
        held.map(|held| held.leaf.to_vec())
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_used_and_nothing_is_asked_before_it_is_due() {
    let (folder, fake) = (Scratch::new(), Fake::new());
    let mut first = issuing(&folder, &fake, &["a.test"]);
    assert!(first.serial().is_none(), "self-signed");
    assert!(first.shared.tls.pin().is_none() && !first.shared.tls.warnings().is_empty());
    first.settle().await;
    let serial = first.serial().unwrap();
    assert_eq!(fake.orders(), 1);
    assert!(first.shared.tls.warnings().is_empty(), "{:?}", first.shared.tls.warnings());
    // A restart.
    let mut second = issuing(&folder, &fake, &["a.test"]);
    assert_eq!(second.serial().unwrap(), serial);
    second.settle().await;
    assert!(fake.asked().is_empty());
    // The renewal, with a third of the life left, and not sooner than a thirtieth before.
    second.progress.entry("a.test".into()).or_default().ask = Some(Instant::now() + 900 * DAY);
    advance(56 * DAY).await;
    second.settle().await;
    assert!(fake.asked().is_empty());
    advance(4 * DAY).await;
    second.settle().await;
    assert_eq!(fake.orders(), 1);
    assert_ne!(second.serial().unwrap(), serial);
}

#[tokio::test(start_paused = true)]
async fn the_directory_is_asked_when_to_renew_and_obeyed() {
    let (folder, fake) = (Scratch::new(), Fake::new());
    let mut issuing = issuing(&folder, &fake, &["a.test"]);
    issuing.settle().await;
    let serial = issuing.serial().unwrap();
    fake.suggest(5, 6);
    issuing.settle().await;
    fake.asked();
    advance(DAY / 2).await;
    issuing.settle().await;
    let asked = fake.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].starts_with("GET /suggestion/"), "{asked:?}");
    // By its Retry-After, not at each look.
    advance(DAY / 8).await;
    issuing.settle().await;
    assert!(fake.asked().is_empty());
    advance(4 * DAY).await;
    issuing.settle().await;
    assert_eq!((fake.orders(), issuing.serial().unwrap() == serial), (0, true));
    advance(2 * DAY).await;
    issuing.settle().await;
    let asked = fake.asked();
    assert!(asked.contains(&"POST /order a.test replaces".to_owned()), "{asked:?}");
    assert_ne!(issuing.serial().unwrap(), serial);
}

#[tokio::test(start_paused = true)]
async fn a_failure_leaves_the_old_certificate_and_waits_as_long_as_the_directory_says() {
    let (folder, fake) = (Scratch::new(), Fake::new());
    let mut issuing = issuing(&folder, &fake, &["a.test"]);
    issuing.settle().await;
    let serial = issuing.serial().unwrap();
    advance(61 * DAY).await;
    fake.asked();
    fake.next(Answer::Refuse("too many", 86_400));
    issuing.settle().await;
    assert_eq!(fake.orders(), 1);
    advance(DAY - Duration::from_secs(1)).await;
    issuing.settle().await;
    assert!(fake.asked().iter().all(|it| !it.starts_with("POST")));
    assert_eq!(issuing.serial().unwrap(), serial);
    advance(DAY).await;
    fake.next(Answer::Invalid("no route"));
    issuing.settle().await;
    assert_eq!((fake.orders(), issuing.serial().unwrap() == serial), (1, true));
    advance(DAY).await;
    issuing.settle().await;
    assert_eq!((fake.orders(), issuing.serial().unwrap() == serial), (1, false));
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_down_is_tried_again_soon_and_counts_as_no_order() {
    let (folder, fake) = (Scratch::new(), Fake::new());
    let mut issuing = issuing(&folder, &fake, &["a.test", "b.test"]);
    for _ in 0..8 {
        fake.next(Answer::Down);
        issuing.settle().await;
        // The directory's failure is one for all names.
        assert_eq!(fake.asked(), ["GET /directory"]);
        let (_, until) = issuing.quiet.unwrap();
        advance(until - Instant::now()).await;
    }
    issuing.settle().await;
    assert_eq!(fake.orders(), 2);
    assert!(issuing.shared.tls.ordered().iter().all(|it| it.held.is_some()));
}

#[tokio::test(start_paused = true)]
async fn one_name_that_is_refused_holds_up_no_other() {
    let (folder, fake) = (Scratch::new(), Fake::new());
    let mut issuing = issuing(&folder, &fake, &["a.test", "b.test"]);
    fake.next(Answer::Invalid("no such host"));
    issuing.settle().await;
    let held: Vec<_> = issuing.shared.tls.ordered().iter().map(|it| it.held.is_some()).collect();
    assert_eq!((fake.orders(), held), (2, vec![false, true]));
}

#[tokio::test(start_paused = true)]
async fn a_configured_name_is_ordered_four_times_an_hour_at_most_whatever_is_restarted() {
    let (folder, fake) = (Scratch::new(), Fake::new());
    for restart in 1..=6 {
        let mut issuing = issuing(&folder, &fake, &["a.test"]);
        fake.next(Answer::Refuse("no", 0));
        issuing.settle().await;
        assert_eq!(fake.orders(), usize::from(restart <= 4), "{restart}");
    }
    advance(Duration::from_secs(3600)).await;
    issuing(&folder, &fake, &["a.test"]).settle().await;
    assert_eq!(fake.orders(), 1);
}

#[tokio::test(start_paused = true)]
async fn dynamic_names_get_theirs_on_admission_a_few_an_hour_and_each_once() {
    let (folder, fake) = (Scratch::new(), Fake::new());
    let mut issuing = issuing(&folder, &fake, &["a.test"]);
    issuing.settle().await;
    assert_eq!(fake.orders(), 1);
    let live: BTreeSet<_> = (0..9).map(|n| format!("n{n}.names.test")).collect();
    while issuing.serve(&live).await <= Instant::now() {}
    assert_eq!(fake.orders(), 5);
    let held = |it: &Issuing| it.shared.tls.ordered().iter().filter(|it| it.held.is_some()).count();
    assert_eq!(held(&issuing), 6);
    // A restart finds the five, and the count.
    let mut issuing = self::issuing(&folder, &fake, &["a.test"]);
    while issuing.serve(&live).await <= Instant::now() {}
    assert_eq!((fake.orders(), held(&issuing)), (0, 6));
    advance(Duration::from_secs(3600)).await;
    fake.next(Answer::Invalid("it leads elsewhere"));
    while issuing.serve(&live).await <= Instant::now() {}
    assert_eq!((fake.orders(), held(&issuing)), (4, 9));
    // One that failed isn't tried again within the hour.
    advance(Duration::from_secs(3000)).await;
    while issuing.serve(&live).await <= Instant::now() {}
    assert_eq!(fake.orders(), 0);
    advance(Duration::from_secs(700)).await;
    while issuing.serve(&live).await <= Instant::now() {}
    assert_eq!((fake.orders(), held(&issuing)), (1, 10));
    // A name that no backend serves isn't renewed.
    advance(61 * DAY).await;
    issuing.settle().await;
    let asked = fake.asked();
    assert!(asked.iter().all(|it| !it.contains("names.test")), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn names_that_another_certificate_is_for_are_not_ordered() {
    let (folder, fake) = (Scratch::new(), Fake::new());
    let source = CertificateSource::SelfSigned {
        names: vec!["*.names.test".into(), "a.test".into()],
        kept: None,
    };
    let mut config = Config::new(source, Admission::make());
    for name in ["a.test", "b.test"] {
        config
            .certificates
            .push(CertificateSource::Acme { name: name.into(), issuer: issuer(&folder) });
    }
    let shared = Shared::new(&config, vec![mpsc::unbounded_channel().0]).unwrap();
    let mut issuing = Issuing::new(shared, now, fake.connect());
    let live = BTreeSet::from(["x.names.test".to_owned(), "y.other.test".to_owned()]);
    while issuing.serve(&live).await <= Instant::now() {}
    let mut ordered = fake.asked();
    ordered.retain(|it| it.starts_with("POST /order "));
    assert_eq!(ordered, ["POST /order b.test", "POST /order y.other.test"]);
    // Different certificates are different parties.
    let certificates = &issuing.shared.tls.certificates;
    assert!(!certificates.is_same(Some("b.test"), "y.other.test"));
    assert!(certificates.is_same(Some("b.test"), "B.test:443"));
}
