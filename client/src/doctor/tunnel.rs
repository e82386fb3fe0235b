//! One real tunnel, dialled and answered as the client does: the label, the credential, the addresses, the round trip.

use std::sync::Arc;
use std::time::Duration;

use ptth_link::alpn;
use ptth_link::doctor::Report;
use ptth_link::h2::goaway::Why;
use ptth_link::h2::pulse::Pulse;
use ptth_link::shutdown::{Phase, channel};
use tokio::select;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::announced::News;
use crate::config::Via;
use crate::dial::{DialError, Network};
use crate::serve::{Answers, Ended, answer};
use crate::tunnels::Stopped;

use super::Patient;
use super::flow::{self, Beside, word};

/// Dials, registers, and sends some through the tunnel.
pub(super) async fn dial<N: Network>(
    patient: &Patient<N>,
    service: impl Answers,
    report: &mut Report,
) {
    let dialled = patient.dialer.dial().await;
    label(patient, &dialled.as_ref().map(|it| it.label.as_deref()), report);
    let dialled = match dialled {
        Ok(dialled) => dialled,
        Err(err) => return refused(patient, err, report),
    };
    let pulse = Arc::<Pulse>::default();
    let answering = patient.process.answering(&dialled, pulse.clone());
    let announced = answering.announced.clone();
    announced.told(dialled.news);
    let word = word();
    let beside = Beside { service, word: word.clone() };
    let ((up, is_up), (drain, draining)) = (oneshot::channel(), channel());
    let mut tunnel = JoinSet::new();
    tunnel.spawn(answer(dialled.stream, beside, answering, draining, up));
    let mut board = announced.watch();
    let told = async {
        if is_up.await.is_ok() {
            let _ =
                timeout(ANNOUNCEMENT, board.wait_for(|board| *board != [News::default()])).await;
            return true;
        }
        std::future::pending().await
    };
    select! {
        _ = told => {}
        Some(Ok(ended)) = tunnel.join_next() => return over(patient, ended, report),
    }
    let mut urls = announced.urls();
    if urls.is_empty() && patient.config.name.is_none() {
        urls.push(format!("{}/", patient.config.public_url()));
    }
    let credential = match (&patient.config.token, &patient.config.authorization) {
        (Some(token), _) => format!("the token of {}", token.public()),
        (None, Some(_)) => "the authorization".to_owned(),
        (None, None) => "this client without a credential".to_owned(),
    };
    report.ok("tunnel", format!("the gateway admits {credential}, for {}", urls.join(" ")));
    round_trip(&pulse, report).await;
    match urls.first() {
        Some(url) => flow::measure(patient, url, &word, report).await,
        None => report.skip("throughput", "the gateway tells no address"),
    }
    drain.advance(Phase::Draining);
    let _ = timeout(ANNOUNCEMENT, tunnel.join_next()).await;
}

/// Whether the ALPN label comes through, by the outcome of a dial.
fn label<N>(
    patient: &Patient<N>,
    dialled: &Result<Option<&[u8]>, &DialError>,
    report: &mut Report,
) {
    let config = &patient.config;
    let label = alpn::display(&config.alpn);
    let by_http = match config.via {
        Via::Auto => config.plain || config.token.is_none() && config.authorization.is_some(),
        via => via != Via::Alpn,
    };
    let lost = format!("something in between doesn't let the label {label} through");
    let by_door_b = "; the client registers by HTTP instead (door B)";
    match dialled {
        _ if by_http => report.skip("alpn", "not needed: the client registers by HTTP (door B)"),
        Ok(seen) if *seen == Some(&config.alpn) => {
            report.ok("alpn", format!("the label {label} comes through (door A)"));
        }
        Ok(_) => report.warn("alpn", lost + by_door_b, "--via upgrade saves the attempt"),
        Err(err) if matches!(err, DialError::NoGateway) || err.is_cut() => report.fail(
            "alpn",
            format!("what answers there is no gateway, or {lost}"),
            "have TCP passed on as it is, or show an --authorization-file, with which the client registers by HTTP",
        ),
        // An error of HTTP: that door came second.
        Err(
            DialError::Denied(_)
            | DialError::Busy(_)
            | DialError::NoDoor(_)
            | DialError::Down(_)
            | DialError::Broken(_)
            | DialError::Authorize(_),
        ) => report.warn("alpn", lost + by_door_b, "--via upgrade saves the attempt"),
        // With TLS 1.2 the refusal comes with the handshake, after the label.
        Err(DialError::Refused(_)) => {
            report.ok("alpn", format!("the label {label} comes through (door A)"));
        }
        Err(err) => report.skip("alpn", err.to_string()),
    }
}

fn over<N>(patient: &Patient<N>, ended: Ended, report: &mut Report) {
    match ended {
        Ended::Refused(err) => refused(patient, err, report),
        Ended::Told(Why::Taken, _) => report.warn("tunnel", Stopped::Taken.to_string(), ""),
        Ended::Told(Why::Forbidden, words) => report.fail(
            "tunnel",
            Stopped::Forbidden(words).to_string(),
            "have the gateway's route allow it, or ask for less",
        ),
        other => {
            report.fail("tunnel", format!("it is lost at once: {other}"), "read the gateway's log")
        }
    }
}

fn refused<N>(patient: &Patient<N>, err: DialError, report: &mut Report) {
    let token = patient.config.token.as_ref();
    let remedy = match (&err, token) {
        (DialError::NoGateway, _) => return report.skip("tunnel", "no gateway answers"),
        (DialError::Refused(_), None) => {
            let why = Stopped::Refused(DialError::Refused("it wants a token"), None);
            return report.fail("tunnel", why.to_string(), "give the token that the gateway printed or has: the variable TOKEN, or --token-file");
        }
        (DialError::Refused(_), Some(_)) => {
            "add that public half to the gateway's --token-file or to the route's `allow`, or give the right token"
        }
        (DialError::Denied(reply), _) => match reply.status.as_u16() {
            401 => "give the right --authorization-file, or have the route allow this one",
            403 => "ask for another --host or --name, or have the gateway allow it",
            409 => "stop the other backend, or ask for another --host or --name",
            _ => "",
        },
        (DialError::Busy(_), _) => "wait, and look into the gateway's log",
        _ => "",
    };
    let why = match err {
        err @ DialError::Refused(_) => {
            Stopped::Refused(err, token.map(|token| token.public())).to_string()
        }
        err => err.to_string(),
    };
    report.fail("tunnel", why, remedy);
}

/// Waits for the answer to the first PING, which leaves with the tunnel's first frames.
async fn round_trip(pulse: &Pulse, report: &mut Report) {
    let mut looks = interval(LOOK);
    let answered = async {
        loop {
            if let Some(time) = pulse.round_trip() {
                return time;
            }
            looks.tick().await;
        }
    };
    match timeout(PONG, answered).await {
        Ok(time) => report.ok("round trip", format!("{:.1} ms", time.as_secs_f64() * 1000.0)),
        Err(_) => report.fail(
            "round trip",
            format!("no answer to a PING within {} s", PONG.as_secs()),
            "something in between holds frames back, or the way is broken",
        ),
    }
}

/// A gateway of ours announces addresses at once.
const ANNOUNCEMENT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);
const PONG: Duration = Duration::from_secs(5);
