//! Reads certificate, keys and configuration again, and applies what changed.
//!
//! Invariant: what can't be used changes nothing. The configuration is exchanged whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use log::{error, info, warn};
use ptth_link::crypto;
use tokio::time::Instant;

use crate::config::{Config, ConfigError};
use crate::policy::Policy;
use crate::shard::Shared;

/// Reads the configuration again. Blocks.
pub(crate) type Load = Box<dyn Fn() -> Result<Config, ConfigError> + Send>;

pub(crate) struct Reload {
    /// Without it, only certificates and tokens are looked at.
    pub(crate) load: Option<Load>,
    digest: [u8; 32],
    /// What the configuration of the start says of the settings that count from the next one.
    from_start: BTreeMap<&'static str, String>,
    /// What the files held at the last look.
    looked: Option<[u8; 32]>,
    complaints: [String; 2],
    /// When the log was told last what is odd about the certificates.
    told: Instant,
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

impl Reload {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            load: None,
            digest: config.digest,
            from_start: config.from_next_start.clone(),
            looked: None,
            complaints: Default::default(),
            told: Instant::now(),
        }
    }

    /// Looks once. `asked`: the operator waits for an answer in the log. Blocks: it reads files.
    pub(crate) fn run(&mut self, shared: &Shared, asked: bool) {
        // What renews a certificate may have stopped.
        if self.told.elapsed() >= DAY {
            self.warn(shared);
        }
        let loaded = self.load.as_ref().map(|load| load());
        let config = loaded.as_ref().map(|loaded| match loaded {
            Ok(config) => config.digest,
            Err(err) => crypto::sha256(err.to_string().as_bytes()),
        });
        let now = [config.unwrap_or_default(), shared.tls.fingerprint()];
        let now = Some(crypto::sha256(now.as_flattened()));
        // A file that an editor or a script is still writing may be cut where it makes sense, with half of its
        // routes. So a change counts when two looks agree.
        if std::mem::replace(&mut self.looked, now) != now && !asked {
            return;
        }
        let config = loaded.is_some_and(|loaded| self.apply(loaded, shared, asked));
        if asked && let Err(err) = shared.observe.access.reopen() {
            error!("gateway: the old access log stays in use: {err}");
        }
        let tls = shared.tls.reload();
        // Where certificates can't be used, the tokens may have changed nevertheless.
        let same = !asked && tls == Ok(false);
        let [_, complaint] = &mut self.complaints;
        match tls {
            Ok(changed) => {
                complaint.clear();
                if changed || asked {
                    let pin = shared.tls.pin().unwrap_or_default();
                    info!("gateway: certificate and tokens are up to date pin={pin}");
                    self.warn(shared);
                }
            }
            Err(err) => {
                complain(complaint, asked, "the old certificate and tokens stay in use", &err);
            }
        }
        if !config && !same {
            shared.registry.judge();
        }
    }

    fn warn(&mut self, shared: &Shared) {
        self.told = Instant::now();
        shared.tls.warnings().iter().for_each(|warning| warn!("gateway: {warning}"));
    }

    /// Whether another policy is in force now, by which all tunnels were judged.
    fn apply(&mut self, loaded: Result<Config, ConfigError>, shared: &Shared, asked: bool) -> bool {
        let [complaint, _] = &mut self.complaints;
        let changed = loaded.and_then(|config| {
            let same = config.digest == self.digest;
            Ok(if same { None } else { Some((shared.tls.change(&config)?, config)) })
        });
        let changed = match changed {
            Ok(changed) => changed,
            Err(err) => {
                complain(complaint, asked, "the old configuration stays in use", &err);
                return false;
            }
        };
        complaint.clear();
        let Some((admits, config)) = changed else { return false };
        if !admits && config.at_large() {
            warn!(
                "gateway: no backend is admitted any more where a route has no `allow`; name a token file, or start anew to have a token made"
            );
        }
        self.digest = config.digest;
        config.warnings.iter().for_each(|warning| warn!("gateway: {warning}"));
        let waiting = differences(&self.from_start, &config.from_next_start);
        if !waiting.is_empty() {
            let waiting = waiting.join(", ");
            warn!("gateway: these settings have changed, and count from the next start: {waiting}");
        }
        let before = shared.registry.policy();
        let policy = Policy::new(&config, &shared.tls.known, shared.shards(), Some(&before));
        shared.registry.swap(policy);
        info!(
            "gateway: the configuration has changed; {} routes are in force",
            config.routes.len()
        );
        true
    }
}

fn differences<'a>(
    old: &BTreeMap<&'a str, String>,
    new: &BTreeMap<&'a str, String>,
) -> Vec<&'a str> {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    names.into_iter().filter(|name| old.get(name) != new.get(name)).collect()
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The same error every few seconds would bury everything else.
fn complain(last: &mut String, asked: bool, what: &str, err: &dyn fmt::Display) {
    let text = err.to_string();
    if asked || text != *last {
        error!("gateway: {what}: {text}");
    }
    *last = text;
}

#[cfg(test)]
mod tests {
    use ptth_link::token::Token;
    use std::sync::{Arc, Mutex};
    use tokio::sync::mpsc;

    use super::*;
    use crate::auth::Admits;
    use crate::config::{Admission, CertificateSource};
    use crate::identity::Key;

    fn config(admission: Admission) -> Config {
        Config::new(CertificateSource::SelfSigned { names: Vec::new(), kept: None }, admission)
    }

    fn keys(token: &Token) -> Admission {
        Admission::Keys { keys: vec![token.public()], file: None, made: None }
    }

    /// A gateway that began with `admission`, and what makes it read others.
    struct Changing {
        shared: Arc<Shared>,
        reload: Reload,
        next: Arc<Mutex<Config>>,
    }

    impl Changing {
        fn start(admission: Admission) -> Self {
            let config = config(admission);
            let (sender, _) = mpsc::unbounded_channel();
            let shared = Shared::new(&config, vec![sender]).unwrap();
            let next = Arc::new(Mutex::new(config.clone()));
            let source = next.clone();
            let mut reload = Reload::new(&config);
            reload.load = Some(Box::new(move || Ok(source.lock().unwrap().clone())));
            Self { shared, reload, next }
        }

        fn change(&mut self, admission: Admission) {
            let mut next = self.next.lock().unwrap();
            next.admission = admission;
            next.digest[0] += 1;
            drop(next);
            self.reload.run(&self.shared, true);
        }

        fn admits(&self, token: &Token) -> bool {
            self.shared.tls.known.names(&Key::Ed25519(token.public()))
        }
    }

    /// What renews a certificate may have stopped long after the start.
    #[tokio::test(start_paused = true)]
    async fn what_is_odd_about_certificates_is_told_once_a_day() {
        let mut gateway = Changing::start(keys(&Token::generate()));
        let begun = gateway.reload.told;
        let second = Duration::from_secs(1);
        for (later, told) in [(DAY - second, begun), (second, begun + DAY), (second, begun + DAY)] {
            tokio::time::advance(later).await;
            gateway.reload.run(&gateway.shared, false);
            assert_eq!(gateway.reload.told, told);
        }
    }

    /// Without `open` in the file the gateway is closed, although no token takes its place.
    #[test]
    fn a_gateway_that_is_no_longer_said_to_be_open_is_closed() {
        let mut changing = Changing::start(Admission::Open);
        assert!(changing.shared.tls.known.is_open());
        changing.change(Admission::make());
        assert!(!changing.shared.tls.known.is_open());
        let (one, other) = (Token::generate(), Token::generate());
        changing.change(keys(&one));
        assert!(changing.admits(&one));
        changing.change(keys(&other));
        assert!(!changing.admits(&one) && changing.admits(&other));
        changing.change(Admission::make());
        assert!(!changing.admits(&other), "nor does an old token live on in silence");
    }

    /// What was printed at the start is good again when nothing else is said.
    #[test]
    fn the_token_made_at_the_start_outlives_what_is_said_in_between() {
        let made = Token::generate();
        let admission = |made: &Token| Admission::Keys {
            keys: vec![made.public()],
            file: None,
            made: Some(made.clone()),
        };
        let mut changing = Changing::start(admission(&made));
        // Each reading makes another one, which isn't shown.
        changing.change(admission(&Token::generate()));
        assert!(changing.admits(&made));
        changing.change(keys(&Token::generate()));
        assert!(!changing.admits(&made));
        changing.change(admission(&Token::generate()));
        assert!(changing.admits(&made));
    }

    /// With another file named, the one named before counts for nothing.
    #[test]
    fn a_token_file_that_is_no_longer_named_is_no_longer_read() {
        let folder = crate::tls::testing::Scratch::new();
        let [old, new, late] = [0; 3].map(|_| Token::generate());
        let file = |name: &str, token: &Token| {
            let path = folder.write(name, token.public().to_string());
            Admission::Keys { keys: vec![token.public()], file: Some(path), made: None }
        };
        let mut changing = Changing::start(file("old", &old));
        changing.change(file("new", &new));
        assert!(changing.admits(&new) && !changing.admits(&old));
        file("old", &late);
        changing.reload.run(&changing.shared, true);
        assert!(changing.admits(&new) && !changing.admits(&late));
        file("new", &late);
        changing.reload.run(&changing.shared, true);
        assert!(changing.admits(&late) && !changing.admits(&new));
    }

    /// What is read half-written, and makes sense, isn't applied.
    #[test]
    fn a_change_that_nobody_asked_to_apply_counts_when_two_looks_agree() {
        let (one, half, whole) = (Token::generate(), Token::generate(), Token::generate());
        let mut changing = Changing::start(keys(&one));
        changing.reload.run(&changing.shared, false);
        for (token, looks, applied) in [(&half, 1, false), (&whole, 1, false), (&whole, 1, true)] {
            let mut next = changing.next.lock().unwrap();
            next.admission = keys(token);
            next.digest = crypto::sha256(token.public().to_string().as_bytes());
            drop(next);
            (0..looks).for_each(|_| changing.reload.run(&changing.shared, false));
            assert_eq!(changing.admits(token), applied);
            assert_eq!(changing.admits(&one), !applied);
        }
        // Asked, at once.
        changing.change(keys(&half));
        assert!(changing.admits(&half));
    }

    /// Nor is half of a token file, though the configuration is what it was.
    #[test]
    fn a_token_file_that_nobody_asked_to_read_counts_when_two_looks_agree() {
        let folder = crate::tls::testing::Scratch::new();
        let [one, half, whole] = [0; 3].map(|_| Token::generate());
        let write = |token: &Token| folder.write("tokens", token.public().to_string());
        let (keys, file) = (vec![one.public()], Some(write(&one)));
        let mut changing = Changing::start(Admission::Keys { keys, file, made: None });
        changing.reload.run(&changing.shared, false);
        for (token, applied) in [(&half, false), (&whole, false), (&whole, true)] {
            write(token);
            changing.reload.run(&changing.shared, false);
            assert_eq!((changing.admits(token), changing.admits(&one)), (applied, !applied));
        }
    }

    #[test]
    fn settings_that_wait_for_the_next_start_are_named() {
        let args = |line: &str| {
            let words = line.split(' ').map(str::to_owned);
            Config::load(
                &ptth_link::cli::parse::<crate::config::Args>("2ptth-server", words).unwrap(),
                &|_| None,
            )
            .unwrap()
        };
        let before = args("--self-signed --grace 5 --listen 443");
        assert!(differences(&before.from_next_start, &before.from_next_start).is_empty());
        let after = args("--self-signed --grace 6 --log trace --take-over");
        let found = differences(&before.from_next_start, &after.from_next_start);
        assert_eq!(found, ["grace", "listen", "log"]);
    }
}
