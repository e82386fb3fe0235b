//! Credentials that nobody judges in time.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use ptth_server::lab::Mark;
use ptth_server::lab::{Checking, Claim, Credential};
use ptth_test::{Lab, soon};
use tokio::time::Instant;

use super::registration;

/// One of which nothing is ever heard.
#[derive(Debug)]
struct Never;

impl Credential for Never {
    fn check<'a>(&'a self, _: &'a Claim<'a>) -> Checking<'a> {
        Box::pin(pending())
    }

    fn keeps(&self, _: Mark) -> bool {
        false
    }

    fn challenge(&self) -> Option<&'static str> {
        None
    }
}

/// However many authorizers are slow, a backend is told before it gives up.
#[tokio::test(start_paused = true)]
async fn who_is_not_judged_in_time_is_told_to_come_again() {
    let mut lab = Lab::with(|config| {
        let hosts = vec!["blog.example.test".parse().expect("a host")];
        let mut route = ptth_server::config::Route::new("blog", hosts);
        route.allow = Some(vec![Arc::new(Never), Arc::new(Never)]);
        config.routes = vec![route];
    });
    let mut door = lab.h1();
    let begun = Instant::now();
    door.send(registration("*", "Authorization: Bearer secret\r\n")).await;
    let answer = soon("an answer", door.answer()).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.field("retry-after"), "1");
    assert!(begun.elapsed() < Duration::from_secs(10), "a client waits for ten seconds");
}
