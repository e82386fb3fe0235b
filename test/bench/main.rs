//! `test/bench/run`: 2ptth beside nginx and HAProxy, on loopback, with the same origin and certificate.
//!
//! The subjects take turns (A B A B), and of each figure the median of the turns counts, whose spread is told.
//! Machines differ, so what counts are ratios of one run. Any response but 2xx voids its run. CPU time is what
//! the kernel says that a program's threads ran (/proc/PID/task/*/schedstat), so that neither the load's
//! own nor the origin's is in it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what it is for")]

mod held;
mod load;
mod plan;
mod process;
mod report;
mod results;
mod subject;
mod targets;
mod trace;
mod visit;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use plan::{PLAN, Scale, Workload};
use results::Results;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use world::World;

/// Why a turn doesn't count, or nothing could be measured.
#[derive(Debug)]
pub(crate) struct Void(pub(crate) String);

/// One turn's figures, by name.
pub(crate) type Values = BTreeMap<&'static str, f64>;

fn main() -> ExitCode {
    let wish = match Wish::parse(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(Void(why)) => {
            eprintln!("bench: {why}");
            eprintln!("usage: test/bench/run [--quick|--smoke] [--out DIR] [WORKLOAD…]");
            PLAN.iter().for_each(|it| eprintln!("  {:10} {}", it.name, it.about));
            return ExitCode::FAILURE;
        }
    };
    match run(&wish) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Void(why)) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for.
struct Wish {
    scale: Scale,
    out: PathBuf,
    workloads: Vec<&'static Workload>,
}

impl Wish {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Void> {
        let mut wish =
            Self { scale: Scale::Full, out: PathBuf::from("target/bench"), workloads: Vec::new() };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => wish.scale = Scale::Quick,
                "--smoke" => wish.scale = Scale::Smoke,
                "--out" => {
                    let out = args.next().ok_or_else(|| Void("--out wants a folder".to_owned()))?;
                    wish.out = out.into();
                }
                name => {
                    let found = PLAN.iter().find(|workload| workload.name == name);
                    let none = || Void(format!("there is no workload {name:?}"));
                    wish.workloads.push(found.ok_or_else(none)?);
                }
            }
        }
        Ok(wish)
    }
}

/// Measures, tells, and says whether all runs count.
fn run(wish: &Wish) -> Result<bool, Void> {
    let folder = |name| {
        std::env::var_os(name).map(PathBuf::from).ok_or_else(|| Void(format!("{name} isn't set")))
    };
    let world = World::new(folder("BENCH_WORK")?, folder("PTTH_BIN")?)?;
    let all: Vec<_> = PLAN.iter().filter(|it| it.is_for(wish.scale)).collect();
    let workloads = if wish.workloads.is_empty() { &all } else { &wish.workloads };
    let mut results = Results::default();
    let mut steady = Vec::new();
    let begun = Instant::now();
    for workload in workloads {
        eprintln!("bench: {} s: {}", begun.elapsed().as_secs(), workload.about);
        let turns = wish.scale.turns();
        let last = usize::from(workload.is_traced() && world.strace.is_ok());
        for turn in 0..turns + last {
            for kind in workload.subjects(&world) {
                if results.is_lost(workload.name, kind) {
                    continue;
                }
                let values = if turn < turns {
                    workload.turn(&world, wish.scale, kind, &mut steady)
                } else {
                    workload.calls(&world, wish.scale, kind, &steady)
                };
                match values {
                    Ok(values) => results.add(workload.name, kind, values),
                    Err(Void(why)) => {
                        eprintln!("bench: void: {}, {}: {why}", workload.name, kind.name());
                        results.voids.push((workload.name, kind, why));
                    }
                }
            }
        }
    }
    let machine = report::machine(&world);
    let tables = report::tables(&results, &machine);
    println!("{tables}");
    let io = |err: std::io::Error| Void(format!("can't write the results: {err}"));
    std::fs::create_dir_all(&wish.out).map_err(io)?;
    std::fs::write(wish.out.join("bench.json"), report::json(&results, &machine)).map_err(io)?;
    let markdown = format!("{HEADER}{tables}\n{}", include_str!("notes.md"));
    std::fs::write(wish.out.join("RESULTS.md"), &markdown).map_err(io)?;
    if wish.scale == Scale::Full && wish.workloads.is_empty() {
        std::fs::write("test/bench/RESULTS.md", &markdown).map_err(io)?;
    }
    eprintln!("bench: {} s; {}", begun.elapsed().as_secs(), wish.out.display());
    Ok(results.voids.is_empty())
}

/// Adds what each program and all together ran between the two samples, for each of `count`.
pub(crate) fn add_cpu(
    values: &mut Values,
    before: &[(&'static str, u64)],
    after: &[(&'static str, u64)],
    figure: &'static str,
    count: f64,
) {
    let names = match figure {
        "us_request" => ["us_request_gateway", "us_request_client"],
        "us_handshake" => ["us_handshake_gateway", "us_handshake_client"],
        _ => ["ns_byte_gateway", "ns_byte_client"],
    };
    let scale = if figure.starts_with("us") { 1000.0 } else { 1.0 };
    let ran = before.iter().zip(after).map(|(before, after)| after.1.saturating_sub(before.1));
    let each: Vec<f64> = ran.map(|nanos| nanos as f64 / scale / count).collect();
    values.insert(figure, each.iter().sum());
    if each.len() > 1 {
        values.extend(names.into_iter().zip(each));
    }
}

/// A runtime for one piece of work.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs `work`, which is void if it hangs.
pub(crate) fn within<T>(work: impl Future<Output = Result<T, Void>>) -> Result<T, Void> {
    let bounded = async { timeout(STUCK, work).await };
    runtime()
        .block_on(bounded)
        .unwrap_or_else(|_| Err(Void(format!("stuck for {} s", STUCK.as_secs()))))
}

/// Longer than any turn takes.
pub(crate) const STUCK: Duration = Duration::from_secs(40);

const HEADER: &str = "# Results of the last full run of test/bench/run

Medians of the turns, ± half of the spread; in brackets the multiple of nginx direct (over a distance: of plain
TCP). `gateway` is the public side, `client` the private one; without either it is both.

";
