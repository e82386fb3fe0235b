//! The workloads: what is done, by whom, and how much of it.

use std::time::Duration;

use ptth_test::wire::Road;

use crate::held;
use crate::load::Load;
use crate::subject::{Kind, Subject};
use crate::trace::calls;
use crate::visit::{Http1, Http2, connect};
use crate::world::World;
use crate::{Values, Void, add_cpu, within};

/// How much is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scale {
    /// Figures to quote.
    Full,
    /// Figures to look at.
    Quick,
    /// Whether it runs at all.
    Smoke,
}

impl Scale {
    /// How often each subject's turn comes.
    pub(crate) fn turns(self) -> usize {
        match self {
            Self::Full => 3,
            Self::Quick => 3,
            Self::Smoke => 1,
        }
    }

    fn of(self, full: u32) -> u32 {
        match self {
            Self::Full => full,
            Self::Quick => full / 5,
            Self::Smoke => (full / 200).max(1),
        }
    }

    /// Bytes of an upload, or of a download over a distance.
    fn bytes(self) -> (&'static str, u64) {
        match self {
            Self::Full | Self::Quick => ("/256m", 256 << 20),
            Self::Smoke => ("/10m", 10 << 20),
        }
    }
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// By which it is asked for.
    pub(crate) name: &'static str,
    /// What it is, in a table's title.
    pub(crate) about: &'static str,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Load(Load),
    Upload { h1: bool },
    Beside,
    Handshakes,
    Idle,
    Streams,
    Stalled,
    Footprint,
    Far { milliseconds: u64 },
}

impl Workload {
    /// Who takes part.
    pub(crate) fn subjects(&self, world: &World) -> Vec<Kind> {
        let mut kinds = match self.what {
            What::Far { .. } => vec![Kind::Tcp, Kind::Twice, Kind::Haproxy, Kind::One, Kind::Four],
            What::Footprint => vec![Kind::Twice, Kind::Haproxy, Kind::Ours],
            _ => vec![Kind::Direct, Kind::Twice, Kind::Haproxy, Kind::Ours],
        };
        if world.haproxy.is_none() {
            kinds.retain(|kind| *kind != Kind::Haproxy);
        }
        kinds
    }

    /// Whether each turn has a subject of its own, since what is left of the one before would count.
    fn is_fresh(&self) -> bool {
        matches!(
            self.what,
            What::Idle | What::Streams | What::Stalled | What::Footprint | What::Far { .. }
        )
    }

    /// Whether it is run once more to count its system calls.
    pub(crate) fn is_traced(&self) -> bool {
        matches!(self.name, "h2-32x10" | "h1-64" | "down-4x4")
    }

    /// How many system calls a request takes, of a subject that had its turns.
    pub(crate) fn calls(
        &self,
        world: &World,
        scale: Scale,
        kind: Kind,
        steady: &[Subject],
    ) -> Result<Values, Void> {
        let subject = steady.iter().find(|subject| subject.kind == kind);
        let (Some(subject), What::Load(load)) = (subject, self.what) else {
            return Err(Void("it isn't there".to_owned()));
        };
        let requests = scale.of(load.requests / 10).max(load.connections * load.streams);
        calls(world, subject, Load { requests, ..load })
    }

    /// Its name's place in the plan tells which are left out where there is little time.
    pub(crate) fn is_for(&self, scale: Scale) -> bool {
        !matches!(
            (scale, self.what),
            (Scale::Smoke, What::Far { milliseconds: 100 } | What::Idle | What::Stalled)
        )
    }

    /// One turn of one subject, among those that are there already or with one of its own.
    pub(crate) fn turn(
        &self,
        world: &World,
        scale: Scale,
        kind: Kind,
        steady: &mut Vec<Subject>,
    ) -> Result<Values, Void> {
        if self.is_fresh() {
            let road = match self.what {
                What::Far { milliseconds } => Some(Road {
                    delay: Duration::from_millis(milliseconds / 2),
                    rate: Some(GIGABIT),
                }),
                _ => None,
            };
            return self.measure(world, scale, &Subject::start(world, kind, road)?);
        }
        if !steady.iter().any(|subject| subject.kind == kind) {
            steady.push(Subject::start(world, kind, None)?);
        }
        match steady.iter().find(|subject| subject.kind == kind) {
            Some(subject) => self.measure(world, scale, subject),
            None => Err(Void("it isn't there".to_owned())),
        }
    }

    fn measure(&self, world: &World, scale: Scale, subject: &Subject) -> Result<Values, Void> {
        match self.what {
            What::Load(load) => {
                // Rounded up, so that every stream has some.
                let least = load.connections * load.streams;
                let warm = Load { requests: scale.of(load.requests / 10).max(least), ..load };
                warm.run(world, subject)?;
                let load = Load { requests: scale.of(load.requests).max(least), ..load };
                let mut values = load.run(world, subject)?;
                let resident = subject.resident().iter().map(|it| it.1).sum::<u64>();
                values.insert("resident_mib", resident as f64 / 1048576.0);
                Ok(values)
            }
            What::Upload { h1 } => upload(subject, scale, h1),
            What::Beside => beside(world, subject, scale),
            What::Handshakes => held::handshakes(subject, scale.of(2000)),
            What::Idle => held::idle(subject, scale.of(10_000)),
            What::Streams => held::streams(subject, scale.of(5000).min(1000)),
            What::Stalled => {
                let load = Load { requests: scale.of(20_000), ..SMALL };
                held::stalled(world, subject, scale.of(5000).min(1000), load)
            }
            What::Footprint => Ok(held::footprint(world, subject)),
            What::Far { .. } => far(subject, scale),
        }
    }
}

fn upload(subject: &Subject, scale: Scale, h1: bool) -> Result<Values, Void> {
    let (_, size) = scale.bytes();
    let before = subject.cpu();
    let took = within(async {
        if h1 {
            let io = connect(subject.address, 1, b"http/1.1", None).await?;
            Http1(io).put("/put/up", size).await
        } else {
            Http2::connect(subject.address, 1).await?.put("/put/up", size).await
        }
    })?;
    let mut values = Values::from([("bytes_s", size as f64 / took.as_secs_f64())]);
    add_cpu(&mut values, &before, &subject.cpu(), "ns_byte", size as f64);
    Ok(values)
}

/// 1 KiB GETs beside four bulk downloads.
fn beside(world: &World, subject: &Subject, scale: Scale) -> Result<Values, Void> {
    let bulk =
        Load { h1: false, connections: 4, streams: 1, path: "/1g", size: 1 << 30, requests: 4000 };
    let mut bulk = bulk.beside(subject)?;
    std::thread::sleep(Duration::from_millis(300));
    // Few: beside some subjects' bulk each takes long, and bulk is bounded, too.
    let values = Load { requests: scale.of(20_000).min(4000), ..SMALL }.run(world, subject);
    let over = !matches!(bulk.try_wait(), Ok(None));
    let _ = bulk.kill();
    let _ = bulk.wait();
    if over {
        return Err(Void("the bulk downloads ended first".to_owned()));
    }
    let mut values = values?;
    // What it cost is mostly the bulk's.
    values.retain(|name, _| matches!(*name, "p50_us" | "p99_us" | "requests_s"));
    Ok(values)
}

/// One download and one upload, one after the other.
fn far(subject: &Subject, scale: Scale) -> Result<Values, Void> {
    let (path, size) = scale.bytes();
    let to = subject.address;
    let (down, up) = within(async {
        if subject.kind == Kind::Tcp {
            let dial = async || {
                let socket = tokio::net::TcpStream::connect(to).await;
                socket.map_err(|err| Void(format!("can't connect: {err}")))
            };
            let down = Http1(dial().await?).get(path, size).await?;
            return Ok((down, Http1(dial().await?).put("/put/up", size).await?));
        }
        let mut visitor = Http2::connect(to, 1).await?;
        // The road is long: what is set up once for many isn't part of it.
        visitor.get("/1k", 1024).await?;
        let down = visitor.get(path, size).await?;
        Ok((down, visitor.put("/put/up", size).await?))
    })?;
    let rate = |time: Duration| size as f64 / time.as_secs_f64();
    Ok(Values::from([("down_bytes_s", rate(down)), ("up_bytes_s", rate(up))]))
}

/// 1 Gbit/s.
const GIGABIT: u32 = 125_000_000;

const SMALL: Load =
    Load { h1: false, connections: 4, streams: 4, path: "/1k", size: 1024, requests: 0 };

const fn get(h1: bool, connections: u32, streams: u32, requests: u32) -> What {
    What::Load(Load { h1, connections, streams, path: "/1k", size: 1024, requests })
}

const fn download(connections: u32, streams: u32, requests: u32) -> What {
    let size = 10 << 20;
    What::Load(Load { h1: false, connections, streams, path: "/10m", size, requests })
}

/// In the order of the tables.
pub(crate) const PLAN: &[Workload] = &[
    Workload {
        name: "h2-32x10",
        about: "1 KiB GET, HTTP/2, 32 connections × 10 streams",
        what: get(false, 32, 10, 60_000),
    },
    Workload { name: "h2-4x4", about: "1 KiB GET, HTTP/2, 4 × 4", what: get(false, 4, 4, 40_000) },
    Workload { name: "h2-1x1", about: "1 KiB GET, HTTP/2, 1 × 1", what: get(false, 1, 1, 10_000) },
    Workload {
        name: "h1-64",
        about: "1 KiB GET, HTTP/1.1, 64 connections",
        what: get(true, 64, 1, 40_000),
    },
    Workload {
        name: "down-4x4",
        about: "10 MiB downloads, HTTP/2, 4 × 4",
        what: download(4, 4, 160),
    },
    Workload {
        name: "down-1x1",
        about: "10 MiB downloads, HTTP/2, 1 × 1",
        what: download(1, 1, 100),
    },
    Workload { name: "up-h1", about: "256 MiB upload, HTTP/1.1", what: What::Upload { h1: true } },
    Workload {
        name: "up-h2",
        about: "256 MiB upload, one HTTP/2 stream",
        what: What::Upload { h1: false },
    },
    Workload {
        name: "beside",
        about: "1 KiB GET, HTTP/2, 4 × 4, beside four bulk downloads",
        what: What::Beside,
    },
    Workload { name: "handshakes", about: "full TLS handshakes", what: What::Handshakes },
    Workload {
        name: "idle",
        about: "10,000 idle HTTP/2 connections over TLS, each after one request",
        what: What::Idle,
    },
    Workload {
        name: "streams",
        about: "1,000 open streams, each with an upload under way",
        what: What::Streams,
    },
    Workload {
        name: "stalled",
        about: "1,000 visitors who stop reading 1 GiB, and 1 KiB GETs beside them",
        what: What::Stalled,
    },
    Workload {
        name: "far-50",
        about: "256 MiB each way, one stream, 1 Gbit/s, 50 ms there and back",
        what: What::Far { milliseconds: 50 },
    },
    Workload {
        name: "far-100",
        about: "the same, 100 ms there and back",
        what: What::Far { milliseconds: 100 },
    },
    Workload {
        name: "footprint",
        about: "resident at rest, and the programs' files",
        what: What::Footprint,
    },
];
