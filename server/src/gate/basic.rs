//! User and password of a visitor (RFC 7617).
//!
//! A hash is slow on purpose. So one at a time is computed, beside the shard's thread; what was found right is
//! remembered for a while, by a hash with a key of this process; and wrong ones slow their address down.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use ptth_link::crypto;
use ptth_link::lock::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Refused;
use crate::auth::{Password, User, authorization};
use crate::quota::{Attempts, Recent};

#[derive(Debug)]
pub(super) struct Passwords {
    /// Never empty.
    users: Arc<[User]>,
    key: [u8; 32],
    right: Mutex<Recent<[u8; 32], REMEMBERED, SECONDS>>,
    /// Its own: a visitor that guesses must not slow down the backends at its address.
    attempts: Arc<Attempts>,
    hashing: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new(users: &[User]) -> Self {
        Self {
            users: users.into(),
            key: crypto::random(),
            right: Mutex::default(),
            attempts: Attempts::new(),
            hashing: Arc::new(Semaphore::new(1)),
        }
    }

    /// Takes Authorization out of a request, if it is right. Cancel safe.
    pub(super) async fn check(&self, fields: &mut HeaderMap, from: IpAddr) -> Result<(), Refused> {
        let mut shown = fields.get_all(AUTHORIZATION).iter();
        let shown = shown.next().filter(|_| shown.next().is_none());
        let pair = shown.and_then(|shown| Some((shown, authorization::basic(shown)?)));
        let (shown, (user, password)) = pair.ok_or(Refused::Password("it shows no password"))?;
        let mark = crypto::hmac_sha256(&self.key, shown.as_bytes());
        if !self.knows(&mark) {
            self.judge(mark, user, password, from).await?;
        }
        // The origin doesn't need it, and might take it for a credential of its own.
        fields.remove(AUTHORIZATION);
        Ok(())
    }

    fn knows(&self, mark: &[u8; 32]) -> bool {
        let mut right = self.right.lock();
        let known = right.has(mark);
        if known {
            right.note(*mark);
        }
        known
    }

    async fn judge(
        &self,
        mark: [u8; 32],
        user: Vec<u8>,
        password: Vec<u8>,
        from: IpAddr,
    ) -> Result<(), Refused> {
        let slow = |wait: Duration| {
            // The same credential may have been found right by another request meanwhile.
            let too_many = Refused::Rate(wait.as_secs().max(1), "too many wrong passwords");
            if self.knows(&mark) { Ok(()) } else { Err(too_many) }
        };
        let attempt = match self.attempts.begin(from, BTreeSet::from([String::new()])).await {
            Ok(attempt) => attempt,
            Err(wait) => return slow(wait),
        };
        let right = match self.find(&user) {
            (Some(Password::Plain(right)), known) => right.digest().is_of(&password) & known,
            (Some(hash), known) => {
                let Ok(Ok(permit)) = timeout(PATIENCE, self.hashing.clone().acquire_owned()).await
                else {
                    attempt.take_back();
                    return slow(PATIENCE);
                };
                if self.knows(&mark) {
                    attempt.take_back();
                    return Ok(());
                }
                let hash = hash.clone();
                let mut hashing = JoinSet::new();
                // The permit goes with the hash, which goes on where the visitor has left.
                hashing.spawn_blocking(move || {
                    let right = hash.is(&password);
                    drop(permit);
                    right
                });
                matches!(hashing.join_next().await, Some(Ok(true))) & known
            }
            (None, _) => false,
        };
        if !right {
            return Err(Refused::Password("user or password is another one"));
        }
        attempt.take_back();
        self.right.lock().note(mark);
        Ok(())
    }

    /// The password of that user, and true; of an unknown one some hash, so that it takes as long, and false.
    fn find(&self, name: &[u8]) -> (Option<&Password>, bool) {
        let mut passwords = self.users.iter().map(|user| &user.password);
        let any = passwords.find(|it| matches!(it, Password::Hash(_)));
        self.users.iter().fold((any, false), |found, user| match user.name.digest().is_of(name) {
            true => (Some(&user.password), true),
            false => found,
        })
    }
}

/// The challenge of a gate that wants a password.
pub(crate) fn challenge() -> HeaderValue {
    HeaderValue::from_static(authorization::BASIC)
}

/// Credentials that are remembered, each since its last use.
const REMEMBERED: usize = 1_000;
const SECONDS: u64 = 300;
/// How long a request waits for the hashes of others.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(feature = "password-hashes")]
#[cfg(test)]
mod tests {

    use std::net::Ipv4Addr;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use tokio::select;
    use tokio::task::yield_now;

    use super::*;

    fn passwords() -> Passwords {
        // `htpasswd -B -C 4`
        let list = "ann:$2y$04$8OKOjn.QuO/MzIVn9QdZ9eZ/oS2EYdWPXB1JE1SxKVLt4ji7wacL.\ncid:plain";
        Passwords::new(&User::list(list).unwrap())
    }

    async fn show(passwords: &Passwords, pair: &str, from: u8) -> Result<(), Refused> {
        let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).unwrap();
        let mut fields = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, from));
        let checked = passwords.check(&mut fields, address).await;
        assert_eq!(fields.is_empty(), checked.is_ok());
        checked
    }

    #[tokio::test]
    async fn what_was_right_once_costs_no_hash_for_a_while() {
        let mut passwords = passwords();
        assert!(show(&passwords, "ann:open sesame", 1).await.is_ok());
        for wrong in ["ann:open sesame ", "dan:open sesame", "cid:open sesame", "ann:plain"] {
            assert!(show(&passwords, wrong, 2).await.is_err(), "{wrong}");
        }
        // None that is asked from here on is right.
        passwords.users = User::list("ann:other\ncid:other").unwrap().into();
        assert!(show(&passwords, "ann:open sesame", 1).await.is_ok());
        assert!(show(&passwords, "cid:plain", 1).await.is_err());
    }

    /// The visitor is gone before its hash is computed.
    #[tokio::test]
    async fn a_visitor_that_leaves_gives_its_hash_back() {
        let passwords = passwords();
        let mut checking = Box::pin(show(&passwords, "ann:guess", 1));
        let hashing = async {
            while passwords.hashing.available_permits() > 0 {
                yield_now().await;
            }
        };
        select! {
            biased;
            _ = checking.as_mut() => panic!("a hash takes longer"),
            () = hashing => {}
        }
        drop(checking);
        let next = timeout(Duration::from_secs(60), passwords.hashing.acquire()).await;
        drop(next.expect("the hash ends, and its permit is free").unwrap());
        assert!(show(&passwords, "ann:open sesame", 1).await.is_ok());
    }

    /// Requests that come together wait for the hash of the first, and have none of their own.
    #[tokio::test]
    async fn what_waits_for_a_hash_goes_by_what_came_of_the_one_before() {
        let passwords = Arc::new(passwords());
        let busy = passwords.hashing.clone().acquire_owned().await.unwrap();
        let mut page = JoinSet::new();
        for _ in 0..100 {
            let passwords = passwords.clone();
            page.spawn(async move { show(&passwords, "ann:open sesame ", 1).await.is_ok() });
        }
        yield_now().await;
        let shown = format!("Basic {}", STANDARD.encode("ann:open sesame "));
        // As if the one before had found it right, which no hash would.
        let mark = crypto::hmac_sha256(&passwords.key, shown.as_bytes());
        passwords.right.lock().note(mark);
        drop(busy);
        assert!(page.join_all().await.into_iter().all(|fine| fine));
    }
}
