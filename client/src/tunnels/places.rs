//! Where the tunnels go: to the gateway, or, with `--all-addresses`, to each address of its name. Addresses come and
//! go, and their tunnels with them.
//!
//! A gateway on several machines shares no state: a backend that is to be found through each of them has
//! tunnels to each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body as HttpBody;
use log::{info, warn};
use ptth_link::body::Body;
use ptth_link::shutdown::{Phase, Shutdown, Trigger, channel};
use tokio::select;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tower_service::Service;

use crate::complaints::Complaints;
use crate::config::Gateway;
use crate::dial::{Dialer, Network};
use crate::retry::{Backoff, Loss};
use crate::tls;

use super::{Process, Slot, Stopped, random};

/// Holds tunnels to the places of one gateway.
pub(super) struct Holding<N, S> {
    pub(super) process: Process,
    /// Of these slots there is one at each place.
    pub(super) slots: Vec<usize>,
    pub(super) network: N,
    pub(super) service: S,
    pub(super) shutdown: Shutdown,
}

/// What is held, and what isn't for now.
#[derive(Default)]
struct Places {
    held: BTreeMap<Gateway, Place>,
    /// Those whose gateway said no, and until when it isn't asked again.
    shunned: BTreeMap<Gateway, Instant>,
}

/// The tunnels to one place.
struct Place {
    /// Small, and no other's: the slots are numbered by it.
    number: usize,
    /// When it was last among those found.
    seen: Instant,
    /// Dropping it lets the tunnels go, in order.
    #[allow(dead_code, reason = "held for its drop")]
    trigger: Trigger,
}

/// How the tunnels of a place ended: whose they were, and why.
type Held = JoinSet<(Gateway, usize, Result<(), Stopped>)>;

impl<N, S, B> Holding<N, S>
where
    N: Network,
    S: Service<Request<Body>, Response = http::Response<B>, Error: Display + Send, Future: Send>
        + Clone
        + Send
        + 'static,
    B: HttpBody<Data = Bytes, Error: Display + Send> + Send + 'static,
{
    /// Looks for places and holds tunnels to them until the shutdown.
    ///
    /// # Errors
    /// [`Stopped`], once the gateways at all of them said no.
    pub(super) async fn hold(mut self) -> Result<(), Stopped> {
        let mut places = Places::default();
        let mut held = Held::new();
        let failures = Arc::new(Notify::new());
        let mut backoff = Backoff::default();
        let mut stop = self.shutdown.clone();
        while !stop.is(Phase::Draining) {
            let looked = Instant::now();
            let found = select! {
                found = self.look() => found,
                () = stop.reached(Phase::Draining) => break,
            };
            let again = match found {
                Ok(found) => {
                    backoff = Backoff::default();
                    self.follow(&found, &mut places, &mut held, &failures)?;
                    looked + LOOK
                }
                Err(err) => {
                    warn!(
                        "dial: the gateway's addresses can't be found: {err}; trying again, for ever"
                    );
                    let pause = backoff.pause(Loss::Unreachable, random());
                    Instant::now() + if places.held.is_empty() { pause } else { LOOK }
                }
            };
            let mut at = again;
            while Instant::now() < at && !stop.is(Phase::Draining) {
                select! {
                    () = sleep_until(at) => {}
                    // Perhaps the gateway has moved; but each of many tunnels says so, again and again.
                    () = failures.notified() => at = again.min(looked + FEWEST),
                    Some(done) = held.join_next() => match done {
                        Ok((address, number, result)) => places.ended(address, number, result)?,
                        Err(err) => warn!("tunnel: its task ended: {err}"),
                    },
                    () = stop.reached(Phase::Draining) => {}
                }
            }
        }
        places.held.clear();
        while held.join_next().await.is_some() {}
        Ok(())
    }

    async fn look(&self) -> io::Result<BTreeSet<Gateway>> {
        if !self.process.shared.config.all_addresses {
            // Its name is looked up anew by each dial.
            return Ok([self.process.shared.config.gateway.clone()].into());
        }
        let looking = self.network.addresses(&self.process.shared.config.gateway);
        let found = timeout(PATIENCE, looking).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        let gateway = |it: SocketAddr| Gateway { host: it.ip().to_string(), port: it.port() };
        // The same ones each time, whatever order they come in.
        let found = found.into_iter().collect::<BTreeSet<_>>().into_iter().take(MOST);
        Ok(found.map(gateway).collect())
    }

    /// Lets go of addresses that are gone, and begins with those that are new.
    fn follow(
        &mut self,
        found: &BTreeSet<Gateway>,
        places: &mut Places,
        held: &mut Held,
        failures: &Arc<Notify>,
    ) -> Result<(), Stopped> {
        let now = Instant::now();
        places.held.retain(|address, place| {
            if found.contains(address) {
                place.seen = now;
            }
            let stays = now - place.seen < GONE;
            if !stays {
                info!("dial: the gateway left {address}; its tunnels finish");
            }
            stays
        });
        places.shunned.retain(|_, until| *until > now);
        let process = &self.process;
        for address in found {
            if places.held.contains_key(address) || places.shunned.contains_key(address) {
                continue;
            }
            let number = places.free_number();
            let (trigger, shutdown) = channel();
            places.held.insert(address.clone(), Place { number, seen: now, trigger });
            if process.shared.config.all_addresses {
                info!("dial: the gateway is at {address}");
            }
            for slot in &self.slots {
                let slot = number * process.slots() + slot;
                let slot = self.slot(slot, address, shutdown.clone(), failures.clone())?;
                let address = address.clone();
                held.spawn(async move { (address, number, slot.hold().await) });
            }
        }
        Ok(())
    }

    fn slot(
        &self,
        number: usize,
        address: &Gateway,
        shutdown: Shutdown,
        failures: Arc<Notify>,
    ) -> Result<Slot<N, S>, Stopped> {
        let process = self.process.clone();
        let instance = format!("{}.{number}", process.instance);
        let dialer = Dialer {
            network: self.network.clone(),
            shared: process.shared.clone(),
            gateway: address.clone(),
            alpn: tls::tunnel(&process.shared.config, process.knowing.clone(), &instance)?,
            instance,
        };
        let label = match process.journal.service() {
            Some(service) => format!("{service}/{number}"),
            None => number.to_string(),
        };
        let (service, complaints) = (self.service.clone(), Complaints::default());
        let up_before = false;
        Ok(Slot { label, process, dialer, service, shutdown, up_before, complaints, failures })
    }
}

impl Places {
    /// The smallest number that is free. If the same gateway had it before, that tunnel is replaced; another gateway
    /// doesn't know the number.
    fn free_number(&self) -> usize {
        let taken: BTreeSet<_> = self.held.values().map(|place| place.number).collect();
        (0..).find(|number| !taken.contains(number)).unwrap_or_default()
    }

    /// A gateway that says no is left alone for a while, if there are others; else that's final.
    fn ended(
        &mut self,
        address: Gateway,
        number: usize,
        result: Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        // Of several tunnels the first that ends counts, and none of an earlier place at the address.
        let is_current = |place: &Place| place.number == number;
        let Err(stopped) = result else { return Ok(()) };
        if !self.held.get(&address).is_some_and(is_current) {
            return Ok(());
        }
        self.held.remove(&address);
        if self.held.is_empty() {
            return Err(stopped);
        }
        warn!("dial: at {address} {stopped}; the others go on");
        self.shunned.insert(address, Instant::now() + LOOK);
        Ok(())
    }
}

/// How often the addresses are looked up.
const LOOK: Duration = Duration::from_secs(30);
/// An address is let go when it wasn't found for so long: visitors know it for a while longer, and some
/// name servers tell a few of many addresses at a time.
const GONE: Duration = Duration::from_secs(60);
/// How often at most, though dials fail.
const FEWEST: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// More machines than any gateway has; a name server shouldn't make us dial thousands.
const MOST: usize = 16;
