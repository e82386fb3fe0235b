//! Certificates by itself: orders them, keeps them, and renews them (RFC 8555).
//!
//! In:  the names that TLS wants ordered: the configuration's, and those of `[names]` that a backend serves.
//! Out: files with certificates and their keys, which TLS reads. One order at a time.
//!
//! Invariant: a failure leaves the certificate in force that is there, and what is stored and not due asks nothing of
//! the directory. No visitor and no accept loop waits for any of this.

mod directory;
mod order;
mod quota;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{Account, CertificateIdentifier, Error, Problem};
use log::{debug, info, warn};
use ptth_link::crypto;
use tokio::select;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::Issuer;
use crate::shard::Shared;
use crate::tls::{Held, Ordered};

use directory::{Connect, RetryAfter};
use quota::Orders;
use schedule::Fault;

/// Orders and renews until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let issuing = Issuing::new(shared, SystemTime::now, Box::new(directory::connect));
    issuing.run().await;
}

struct Issuing {
    shared: Arc<Shared>,
    now: fn() -> SystemTime,
    connect: Connect,
    progress: HashMap<String, Progress>,
    /// Since the directory as a whole failed: how often in a row, and when it is asked again.
    quiet: Option<(u32, Instant)>,
    /// The hosts of dynamic names that had a backend in the life of this process.
    further: BTreeSet<String>,
}

/// How it stands with one name.
#[derive(Default)]
struct Progress {
    failures: u32,
    /// No attempt before this.
    rest: Option<Instant>,
    /// When the directory suggests to renew, in seconds since 1970.
    suggested: Option<(i64, i64)>,
    /// When it is asked about that again.
    ask: Option<Instant>,
}

/// Why there is no new certificate.
struct Failed {
    words: String,
    fault: Fault,
}

impl Issuing {
    fn new(shared: Arc<Shared>, now: fn() -> SystemTime, connect: Connect) -> Self {
        let (progress, further) = (HashMap::new(), BTreeSet::new());
        Self { shared, now, connect, progress, quiet: None, further }
    }

    async fn run(mut self) {
        let registry = self.shared.registry.clone();
        loop {
            let changed = registry.changed();
            let next = self.look().await;
            select! {
                () = sleep_until(next) => {}
                // A fleet that comes back is one change.
                () = changed => sleep(SETTLE).await,
            }
        }
    }

    /// Does what is due, and says when to look again.
    async fn look(&mut self) -> Instant {
        let live = self.shared.registry.policy().named_hosts();
        self.serve(&live).await
    }

    /// The same, where backends serve these hosts by dynamic names.
    async fn serve(&mut self, live: &BTreeSet<String>) -> Instant {
        self.further.extend(live.iter().cloned());
        if self.further.len() > MOST_FURTHER {
            self.further = live.iter().take(MOST_FURTHER).cloned().collect();
        }
        if let Err(err) = self.shared.tls.order_also(&self.further) {
            warn!("acme: no certificate can be prepared: {err}");
        }
        let ordered = self.shared.tls.ordered();
        let names: BTreeSet<_> = ordered.iter().map(|it| it.name.as_str()).collect();
        self.progress.retain(|name, _| names.contains(name.as_str()));
        // The configuration may have other names by then.
        let mut next = Instant::now() + LOOK;
        for wanted in &ordered {
            // A name that no backend serves has no visitors.
            if !wanted.further || live.contains(&wanted.name) {
                next = next.min(self.attend(wanted).await);
            }
        }
        next
    }

    /// Orders this certificate if it is due, and says when to come back.
    async fn attend(&mut self, wanted: &Ordered) -> Instant {
        let quiet = self.quiet.map(|(_, until)| until);
        let progress = self.progress.entry(wanted.name.clone()).or_default();
        if let Some(until) = quiet.max(progress.rest).filter(|until| *until > Instant::now()) {
            return until;
        }
        if let Some(held) = &wanted.held {
            let due = self.due(wanted, held).await;
            if !due.is_zero() {
                return Instant::now() + due;
            }
        }
        let now = self.seconds();
        let orders = Orders::load(&wanted.issuer.folder);
        match orders.until(&wanted.name, wanted.further, now) {
            None => self.order(wanted).await,
            Some(until) => {
                let wait = Duration::from_secs(u64::try_from(until - now).unwrap_or_default());
                debug!("acme: enough orders for now name={:?} wait={wait:?}", wanted.name);
                self.rest(&wanted.name, wait);
            }
        }
        // Others first.
        Instant::now()
    }

    /// How long it is until the certificate is renewed.
    async fn due(&mut self, wanted: &Ordered, held: &Held) -> Duration {
        let now = Instant::now();
        let Progress { suggested, ask, .. } = self.progress.entry(wanted.name.clone()).or_default();
        let when = *ask.get_or_insert(now + SUGGESTIONS.mul_f64(0.5 + random()));
        if when <= now {
            // A directory without suggestions is asked rarely, since it may have them some day.
            *ask = Some(now + LONGEST_SUGGESTION);
            match timeout(WHOLE, suggestion(&self.connect, &wanted.issuer, held)).await {
                Ok(Ok((window, again))) => {
                    *suggested = Some(window);
                    *ask = Some(now + again.clamp(SHORTEST_SUGGESTION, LONGEST_SUGGESTION));
                }
                Ok(Err(err)) => debug!("acme: no suggestion name={:?}: {err:?}", wanted.name),
                Err(_) => debug!("acme: no suggestion in time name={:?}", wanted.name),
            }
        }
        let due = schedule::due(held, *suggested, fraction(&held.leaf));
        Duration::from_secs(u64::try_from(due - self.seconds()).unwrap_or_default())
    }

    async fn order(&mut self, wanted: &Ordered) {
        let Ordered { name, issuer, .. } = wanted;
        let began = Instant::now();
        info!("acme: ordering a certificate name={name:?} directory={}", issuer.directory);
        let after = RetryAfter::default();
        let ordered = timeout(WHOLE, self.obtain(wanted, &after)).await;
        let late = Err(Failed { words: "it took too long".to_owned(), fault: Fault::Directory });
        let kept = ordered.unwrap_or(late).and_then(|pem| {
            let wrong = |err| Failed { words: format!("{err}"), fault: Fault::Order };
            self.shared.tls.keep(name, issuer, &pem).map_err(wrong)
        });
        match kept {
            Ok(expires) => {
                let took = began.elapsed();
                info!(
                    "acme: a certificate was issued name={name:?} expires={expires:?} took={took:.1?}"
                );
                self.quiet = None;
                self.progress.remove(name);
            }
            Err(failed) => {
                let after = *after.lock();
                self.failed(wanted, failed, after);
            }
        }
    }

    async fn obtain(&self, wanted: &Ordered, after: &RetryAfter) -> Result<String, Failed> {
        let Ordered { name, issuer, held, .. } = wanted;
        let progress = self.progress.get(name);
        // A directory that doesn't like it may like an order without.
        let first = progress.is_none_or(|it| it.failures == 0);
        let suggests = first && progress.is_some_and(|it| it.suggested.is_some());
        let replaces = held.as_ref().filter(|_| suggests).and_then(|held| identifier(held).ok());
        let lost = |err: io::Error| Failed {
            words: format!("{} can't be written ({err}); check --state", issuer.folder.display()),
            fault: Fault::Directory,
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&issuer.folder).map_err(lost)?;
        let account = account(&self.connect, issuer, after).await?;
        // Where a restart finds it.
        let orders = Orders::load(&issuer.folder);
        orders.note(name, wanted.further, self.seconds()).map_err(lost)?;
        let issued = order::issue(&account, name, replaces, &self.shared.tls.challenges).await;
        issued.map_err(|err| {
            let is_lost = |it: &Problem| it.r#type.as_deref().is_some_and(|it| it.ends_with(LOST));
            if matches!(&err, Error::Api(problem) if is_lost(problem)) {
                directory::forget(issuer);
            }
            failure(&err)
        })
    }

    fn failed(&mut self, wanted: &Ordered, failed: Failed, after: Option<Duration>) {
        let Failed { words, fault } = failed;
        let (name, directory) = (&wanted.name, &wanted.issuer.directory);
        let pause = match fault {
            Fault::Directory => {
                let failures = self.quiet.map_or(0, |(failures, _)| failures) + 1;
                let pause = schedule::pause(fault, failures, after, random());
                self.quiet = Some((failures, Instant::now() + pause));
                pause
            }
            Fault::Order => {
                let progress = self.progress.entry(name.clone()).or_default();
                progress.failures += 1;
                let pause = schedule::pause(fault, progress.failures, after, random());
                self.quiet = None;
                self.rest(name, pause);
                pause
            }
        };
        let shown = if wanted.held.is_some() { "the old one" } else { "a self-signed one" };
        warn!(
            "acme: no new certificate, visitors get {shown} name={name:?} directory={directory} retry_s={}: {words:?}",
            pause.as_secs()
        );
    }

    fn rest(&mut self, name: &str, pause: Duration) {
        self.progress.entry(name.to_owned()).or_default().rest = Some(Instant::now() + pause);
    }

    /// Since 1970.
    fn seconds(&self) -> i64 {
        let since = (self.now)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

async fn account(
    connect: &Connect,
    issuer: &Issuer,
    after: &RetryAfter,
) -> Result<Account, Failed> {
    let http = connect(issuer, after.clone());
    let http = http.map_err(|err| Failed { words: err.to_string(), fault: Fault::Directory })?;
    directory::account(issuer, http).await.map_err(|err| failure(&err))
}

/// When the directory suggests to renew, and after which time to ask again (RFC 9773 §4).
async fn suggestion(
    connect: &Connect,
    issuer: &Issuer,
    held: &Held,
) -> Result<((i64, i64), Duration), String> {
    let account = account(connect, issuer, &RetryAfter::default()).await;
    let account = account.map_err(|failed| failed.words)?;
    let asked = account.renewal_info(&identifier(held)?).await;
    let (info, again) = asked.map_err(|err| err.to_string())?;
    let window = info.suggested_window;
    Ok(((window.start.unix_timestamp(), window.end.unix_timestamp()), again))
}

fn identifier(held: &Held) -> Result<CertificateIdentifier<'static>, String> {
    CertificateIdentifier::try_from(&held.leaf).map(CertificateIdentifier::into_owned)
}

/// The directory's words, as far as there are any.
fn failure(err: &Error) -> Failed {
    let fault = match err {
        Error::Api(problem) if problem.status.is_none_or(|status| status < 500) => Fault::Order,
        Error::Timeout(_) | Error::Unsupported(_) => Fault::Order,
        _ => Fault::Directory,
    };
    let words = err.to_string();
    let words = words.strip_prefix("API error: ").unwrap_or(&words);
    Failed { words: words.chars().take(LONGEST_WORDS).collect(), fault }
}

/// Uniform in 0..1.
fn random() -> f64 {
    f64::from(u32::from_ne_bytes(crypto::random())) / f64::from(u32::MAX)
}

/// The same for one certificate each time, and uniform in 0..1 over all.
fn fraction(bytes: &[u8]) -> f64 {
    let [a, b, c, d, ..] = crypto::sha256(bytes);
    f64::from(u32::from_ne_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

/// RFC 8555 §6.7.
const LOST: &str = ":accountDoesNotExist";
/// Of the directory's words, in characters.
const LONGEST_WORDS: usize = 1000;
/// For all of an order: two polls of a minute, and the requests.
const WHOLE: Duration = Duration::from_secs(240);
/// At most until names of a changed configuration are seen.
const LOOK: Duration = Duration::from_secs(10);
/// From a tunnel's coming or going to a look.
const SETTLE: Duration = Duration::from_secs(1);
/// About how long after the start, and after a renewal, the directory is asked when to renew.
const SUGGESTIONS: Duration = Duration::from_secs(6 * 3600);
const SHORTEST_SUGGESTION: Duration = Duration::from_secs(3600);
const LONGEST_SUGGESTION: Duration = Duration::from_secs(24 * 3600);
/// Dynamic names that have certificates at a time.
const MOST_FURTHER: usize = 1000;
