//! What to do after a failed dial, or after the end of a tunnel.

use std::sync::atomic::Ordering;
use std::time::Duration;

use log::{info, warn};
use ptth_link::h2::goaway::Why;
use ptth_link::token::Token;

use crate::dial::{DialError, Verdict};
use crate::retry::Loss;
use crate::serve::Ended;
use crate::stopped::Stopped;

use super::{Live, Slot};

impl<N, S> Slot<N, S> {
    fn failed(&mut self, err: DialError) -> Result<Loss, Stopped> {
        let standby = self.process.shared.config.standby;
        let loss = match err.verdict() {
            _ if err.is_taken() && standby => return Ok(self.stand_by()),
            Verdict::Final => return Err(self.refused(err)),
            // After a success, the client may be behind a captive portal.
            Verdict::FinalAtFirst if !self.up_before => {
                let denied = matches!(err, DialError::Denied(_));
                return Err(if denied { self.refused(err) } else { Stopped::Unknown(err) });
            }
            Verdict::FinalAtFirst | Verdict::Failed => Loss::Failed,
            Verdict::Absent => Loss::Unreachable,
            Verdict::Later(after) => Loss::Later(after),
        };
        self.failures.notify_one();
        self.complain(&err.to_string());
        Ok(loss)
    }

    /// What to do after the end of a tunnel. Without `live`, it never came up.
    pub(super) fn lost(&mut self, ended: Ended, live: Option<Live>) -> Result<Loss, Stopped> {
        let ups = self.process.ups.load(Ordering::Relaxed);
        match ended {
            Ended::Refused(err) => return self.failed(err),
            Ended::Told(Why::Taken, _) if self.process.shared.config.standby => {
                return Ok(self.stand_by());
            }
            Ended::Told(Why::Taken, _) => return Err(Stopped::Taken),
            Ended::Told(Why::Forbidden, words) => return Err(Stopped::Forbidden(words)),
            Ended::Told(Why::Replaced, _) if live.as_ref().is_none_or(|live| live.up == ups) => {
                return Err(Stopped::Replaced);
            }
            // A tunnel of this process came up later. Either that tunnel replaced this one, or another backend replaces
            // it, too, and its end stops the process; dialling before would replace the other backend.
            Ended::Told(Why::Replaced, _) => {
                info!("tunnel: {} {ended}", self.label);
                return Ok(Loss::Displaced);
            }
            Ended::Told(Why::Stopping, _) => {
                info!("tunnel: {} {ended}; looking for its successor", self.label);
            }
            _ => self.complain(&format!("lost: {ended}")),
        }
        Ok(Loss::Lost(live.map_or(Duration::ZERO, |live| live.since.elapsed())))
    }

    fn stand_by(&self) -> Loss {
        let what = "another backend is there";
        if self.complaints.is_due(what) {
            info!("tunnel: {} {what}; standing by until it is gone", self.label);
        }
        Loss::Taken
    }

    /// Without a token, the gateway's text about a key would confuse the user: that key is a stand-in.
    fn refused(&self, err: DialError) -> Stopped {
        let key = self.process.shared.config.token.as_ref().map(Token::public);
        match err {
            DialError::Refused(_) if key.is_none() => {
                Stopped::Refused(DialError::Refused("it wants a token"), None)
            }
            DialError::Refused(_) => Stopped::Refused(err, key),
            _ => Stopped::Refused(err, None),
        }
    }

    fn complain(&self, what: &str) {
        if self.complaints.is_due(what) {
            let (label, gateway) = (&self.label, &self.dialer.gateway);
            warn!("tunnel: {label} gateway={gateway} {what}; trying again, for ever");
        }
    }
}
