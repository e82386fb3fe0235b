//! The addresses of the tunnels: the gateway's name, or, with `--all-addresses`, each address that the name has now.
//!
//! The machines of a gateway share no state, so a backend needs tunnels to each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use ptth_link::shutdown::{Phase, Shutdown, Trigger, channel};
use tokio::select;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::complaints::Complaints;
use crate::config::Gateway;
use crate::dial::Network;
use crate::retry::{Backoff, Loss};
use crate::serve::Answers;

use super::{Process, Slot, Stopped, random};

/// The tunnels of one service on one core, to all places of its gateway.
struct Places<N, S> {
    process: Process,
    /// Each place has one tunnel for each of these.
    slots: Vec<usize>,
    network: N,
    service: S,
    held: BTreeMap<Gateway, Place>,
    /// The addresses whose gateway refused, until when they are left out.
    shunned: BTreeMap<Gateway, Instant>,
    tunnels: JoinSet<(Gateway, Result<(), Stopped>)>,
    /// Notified of each failed dial.
    failures: Arc<Notify>,
    complaints: Complaints,
}

struct Place {
    /// The smallest free number; slots are numbered by it.
    number: usize,
    /// The time of the last look-up that found it.
    seen: Instant,
    /// Dropping it drains the tunnels.
    _trigger: Trigger,
}

impl Process {
    /// Holds the tunnels of these slots, on this runtime, until `shutdown`. Dropping it cuts them. Fails once all
    /// gateways refused, or can't be trusted.
    pub async fn hold(
        &self,
        slots: impl Iterator<Item = usize>,
        network: impl Network,
        service: impl Answers,
        mut shutdown: Shutdown,
    ) -> Result<(), Stopped> {
        let mut places = Places {
            process: self.clone(),
            slots: slots.collect(),
            network,
            service,
            held: BTreeMap::new(),
            shunned: BTreeMap::new(),
            tunnels: JoinSet::new(),
            failures: Arc::default(),
            complaints: Complaints::default(),
        };
        select! {
            biased;
            () = shutdown.reached(Phase::Draining) => {}
            stopped = places.watch() => match stopped? {},
        }
        places.held.clear();
        while places.tunnels.join_next().await.is_some() {}
        Ok(())
    }
}

impl<N: Network, S: Answers> Places<N, S> {
    /// Follows the addresses, until all gateways refused.
    async fn watch(&mut self) -> Result<Infallible, Stopped> {
        let mut backoff = Backoff::default();
        loop {
            let looked = Instant::now();
            let again = match self.look().await {
                Ok(found) => {
                    backoff = Backoff::default();
                    self.follow(&found)?;
                    looked + LOOK
                }
                Err(err) => {
                    warn!(
                        "dial: the gateway's addresses can't be found: {err}; trying again, for ever"
                    );
                    let pause = backoff.pause(Loss::Unreachable, random());
                    Instant::now() + if self.held.is_empty() { pause } else { LOOK }
                }
            };
            let mut at = again;
            while Instant::now() < at {
                select! {
                    () = sleep_until(at) => {}
                    // The gateway may have moved; but each of many tunnels notifies often.
                    () = self.failures.notified() => at = again.min(looked + FEWEST),
                    Some(done) = self.tunnels.join_next() => match done {
                        Ok((_, Ok(()))) => {}
                        Ok((address, Err(why))) => self.ended(address, why)?,
                        Err(err) => warn!("tunnel: its task ended: {err}"),
                    },
                }
            }
        }
    }

    async fn look(&self) -> io::Result<BTreeSet<Gateway>> {
        let config = &self.process.shared.config;
        if !config.all_addresses {
            // Each dial looks up the name.
            return Ok([config.gateway.clone()].into());
        }
        let looking = self.network.addresses(&config.gateway);
        let found = timeout(PATIENCE, looking).await??;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        let gateway = |it: SocketAddr| Gateway { host: it.ip().to_string(), port: it.port() };
        // Sorted, so that the same ones are taken each time.
        let found: BTreeSet<_> = found.into_iter().collect();
        let (count, tells) = (found.len(), self.slots.contains(&0));
        if count > MOST && tells && self.complaints.is_due("addresses") {
            warn!("dial: the gateway has {count} addresses; only the first {MOST} get tunnels");
        }
        Ok(found.into_iter().take(MOST).map(gateway).collect())
    }

    /// Removes the places that are gone, and adds the new ones.
    fn follow(&mut self, found: &BTreeSet<Gateway>) -> Result<(), Stopped> {
        let now = Instant::now();
        self.held.retain(|address, place| {
            if found.contains(address) {
                place.seen = now;
            }
            let stays = now - place.seen < GONE;
            if !stays {
                info!("dial: the gateway left {address}; its tunnels finish");
            }
            stays
        });
        self.shunned.retain(|_, until| *until > now);
        for address in found {
            if self.held.contains_key(address) || self.shunned.contains_key(address) {
                continue;
            }
            // Those that left, and those that refused, count for a while: else a name server with other addresses in
            // each answer would have a multiple of them dialled.
            if self.held.len() + self.shunned.len() >= MOST {
                break;
            }
            // If the same gateway had this number before, the new tunnels replace the old ones there.
            let taken: BTreeSet<_> = self.held.values().map(|place| place.number).collect();
            let number = (0..).find(|number| !taken.contains(number)).unwrap_or_default();
            let (_trigger, shutdown) = channel();
            self.held.insert(address.clone(), Place { number, seen: now, _trigger });
            if self.process.shared.config.all_addresses {
                info!("dial: the gateway is at {address}");
            }
            for slot in &self.slots {
                let process = self.process.clone();
                let slot = number * process.slots() + slot;
                let dialer = process.dialer(self.network.clone(), address.clone(), slot)?;
                let service = process.answering.journal.service();
                let label =
                    service.map(|it| format!("{it}/")).unwrap_or_default() + &slot.to_string();
                let slot = Slot {
                    place: process.shown.place(service, &label, address.to_string()),
                    label,
                    process,
                    dialer,
                    service: self.service.clone(),
                    up_before: false,
                    complaints: Complaints::default(),
                    failures: self.failures.clone(),
                };
                let (address, stop) = (address.clone(), shutdown.clone());
                self.tunnels.spawn(async move { (address, slot.hold(stop).await) });
            }
        }
        Ok(())
    }

    /// If there are other places, an address that refuses is left out for a while; else the refusal is final.
    fn ended(&mut self, address: Gateway, why: Stopped) -> Result<(), Stopped> {
        // Only the first result of a place counts.
        if self.held.remove(&address).is_none() {
            return Ok(());
        }
        if self.held.is_empty() {
            return Err(why);
        }
        warn!("dial: at {address} {why}; the others go on");
        self.shunned.insert(address, Instant::now() + LOOK);
        Ok(())
    }
}

const LOOK: Duration = Duration::from_secs(30);
/// An address is removed when it wasn't found for so long: some name servers answer with a few of many addresses.
const GONE: Duration = Duration::from_secs(60);
/// The shortest interval of look-ups, however many dials fail.
const FEWEST: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// More than a gateway has; a name server must not make the client dial thousands.
const MOST: usize = 64;
