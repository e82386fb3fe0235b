//! One attempt, and what it means for the request.

use std::future::ready;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use ptth_link::body::Body;
use ptth_link::crypto;
use tokio::time::timeout;

use crate::error::ExchangeError;
use crate::exchange::{Exchange, Way, ask};

use crate::outbox::Delivery;

#[derive(Debug)]
pub(super) enum Outcome {
    /// The origin has it, whatever it answered.
    Delivered(StatusCode),
    /// The reason, and the shortest pause before the next attempt.
    Failed(String, Option<Duration>),
}

/// Tries once. `None`: there was no backend to ask. Dropping the future resets the stream.
pub(super) async fn attempt(delivery: &Delivery, way: &Way<'_>) -> Option<Outcome> {
    let data = Full::new(delivery.body.clone());
    let body = match delivery.trailers.clone() {
        None => Either::Left(data),
        Some(trailers) => Either::Right(data.with_trailers(ready(Some(Ok(trailers))))),
    };
    match ask(way, Box::new(delivery.head.clone()), body, &mut |_, _| {}).await {
        Ok((response, exchange)) => {
            let (head, body) = response.into_parts();
            drain(body, exchange).await;
            Some(judge(head.status, &head.headers))
        }
        Err(ExchangeError::Absent(_) | ExchangeError::Moved) => None,
        Err(err) => Some(Outcome::Failed(err.to_string(), None)),
    }
}

/// A 5xx is a fault of the origin, and 408 and 429 ask for another attempt. Any other answer is about the request
/// itself, and would be the same the next time.
fn judge(status: StatusCode, fields: &HeaderMap) -> Outcome {
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    if !status.is_server_error() && !passing.contains(&status) {
        return Outcome::Delivered(status);
    }
    // In seconds alone: a date would be by the origin's clock.
    let after = fields.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Outcome::Failed(format!("status {}", status.as_u16()), after.map(Duration::from_secs))
}

/// Reads a short response to its end, so that its stream isn't reset.
async fn drain(body: Body, exchange: Exchange) {
    let reading = async move {
        let mut body = Limited::new(body, DRAINED);
        while let Some(Ok(_)) = body.frame().await {}
    };
    // Late or not, the head has come, and that is what counts.
    let _ = timeout(DRAINING, async { tokio::join!(exchange, reading) }).await;
}

/// The pause after so many attempts: it doubles from two seconds to five minutes, and up to half of it is taken off at
/// random, so that requests that failed together don't come back together.
pub(super) fn back_off(attempts: u32) -> Duration {
    spread(attempts, u32::from_ne_bytes(crypto::random()))
}

fn spread(attempts: u32, random: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let longest = (FIRST * 2 * (1 << doublings)).min(LONGEST);
    longest / 2 + (longest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// The first pause: an origin that restarts is back in a second or two.
pub(super) const FIRST: Duration = Duration::from_secs(1);
/// A repaired origin gets the waiting requests within minutes.
pub(super) const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Bytes of a response that are read. Answers to webhooks are short.
const DRAINED: usize = 64 * 1024;
const DRAINING: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_five_minutes() {
        let seconds = |attempts, random| spread(attempts, random).as_secs_f64();
        assert_eq!((seconds(1, 0), seconds(1, u32::MAX)), (1.0, 2.0));
        assert_eq!((seconds(2, 0), seconds(2, u32::MAX)), (2.0, 4.0));
        assert_eq!((seconds(8, 0), seconds(8, u32::MAX)), (128.0, 256.0));
        assert_eq!((seconds(9, 0), seconds(9, u32::MAX)), (150.0, 300.0));
        assert_eq!(seconds(u32::MAX, u32::MAX), 300.0);
        for attempts in 0..30 {
            let pause = back_off(attempts);
            assert!(pause >= FIRST && pause <= LONGEST, "{attempts}: {pause:?}");
        }
    }

    #[test]
    fn what_is_about_the_request_is_final_and_what_is_broken_is_not() {
        let fields = HeaderMap::from_iter([(RETRY_AFTER, "7".parse().unwrap())]);
        for status in [200, 204, 302, 400, 401, 403, 404, 409, 410, 413, 422] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(matches!(judge(status, &fields), Outcome::Delivered(_)), "{status}");
        }
        for status in [408, 429, 500, 501, 502, 503, 504, 599] {
            let status = StatusCode::from_u16(status).unwrap();
            let Outcome::Failed(why, after) = judge(status, &fields) else { panic!("{status}") };
            assert_eq!((why, after), (format!("status {}", status.as_u16()), Some(FIRST * 7)));
        }
    }
}
