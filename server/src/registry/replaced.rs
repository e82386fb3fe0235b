//! Backends that lost their place to another one, and may not take it back at once.
//!
//! Our own client ends when it is told so. Another one dials again, is a newcomer like any, and would
//! push out whoever pushed it out, and so on for ever.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

use crate::identity::{Identity, Key};
use crate::router::RouteId;

/// Who was replaced, where, and until when that counts. A backend that doesn't tell its processes apart, whose instance
/// is empty, is known by its key alone.
#[derive(Debug, Default)]
pub(super) struct Replaced(HashMap<(RouteId, Option<Key>, String), Instant>);

fn entry(route: &RouteId, who: &Identity) -> (RouteId, Option<Key>, String) {
    (route.clone(), who.key, who.instance.clone())
}

impl Replaced {
    /// Remembers that `who` lost `route`, or tried to get it back: [`MEMORY`] from now on.
    pub(super) fn note(&mut self, route: &RouteId, who: &Identity) {
        let (entry, now) = (entry(route, who), Instant::now());
        if self.0.len() >= MOST && !self.0.contains_key(&entry) {
            self.0.retain(|_, until| *until > now);
            let oldest = self.0.iter().min_by_key(|(_, until)| **until).map(|(it, _)| it.clone());
            oldest.filter(|_| self.0.len() >= MOST).and_then(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(entry, now + MEMORY);
    }

    /// Whether `who` lost `route` a short while ago. Whoever has no key is everybody and nobody.
    pub(super) fn has(&self, route: &RouteId, who: &Identity) -> bool {
        let until = who.key.and_then(|_| self.0.get(&entry(route, who)));
        until.is_some_and(|until| *until > Instant::now())
    }

    /// It has it again, since nobody else did.
    pub(super) fn forget(&mut self, route: &RouteId, who: &Identity) {
        if !self.0.is_empty() {
            self.0.remove(&entry(route, who));
        }
    }
}

/// Longer than any backend waits before it dials again; each attempt begins it anew.
const MEMORY: Duration = Duration::from_secs(60);
/// Each entry is a backend that was admitted, so nobody fills this without a credential.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(key: u8, instance: &str) -> Identity {
        let (key, instance) = (Some(Key::Other([key; 32])), instance.to_owned());
        Identity { key, instance, ..Identity::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_replaced_is_known_for_a_minute_after_its_last_attempt() {
        let mut replaced = Replaced::default();
        let [route, other] = ["a", "b"].map(|name| RouteId::Name(name.to_owned()));
        let who = backend(1, "");
        replaced.note(&route, &who);
        assert!(replaced.has(&route, &who));
        let others = [backend(2, ""), backend(1, "x"), Identity::default()];
        assert!(!others.iter().any(|other| replaced.has(&route, other)));
        assert!(!replaced.has(&other, &who));
        tokio::time::advance(Duration::from_secs(59)).await;
        replaced.note(&route, &who);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(replaced.has(&route, &who));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!replaced.has(&route, &who));
        replaced.note(&route, &who);
        replaced.forget(&route, &who);
        assert!(!replaced.has(&route, &who));
    }

    #[tokio::test]
    async fn the_memory_is_bounded() {
        let mut replaced = Replaced::default();
        let route = RouteId::Name("a".to_owned());
        for n in 0..3000 {
            replaced.note(&route, &backend(1, &n.to_string()));
        }
        assert_eq!(replaced.0.len(), MOST);
        assert!(
            replaced.has(&route, &backend(1, "2999")) && !replaced.has(&route, &backend(1, "0"))
        );
    }
}
