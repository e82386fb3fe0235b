//! `doctor` of both programs: each thing that it tells is broken here, and nothing else.

mod client;
mod server;
mod tunnel;

use ptth_link::doctor::{Report, Step, Verdict};

/// It has that verdict, and says that.
#[track_caller]
fn says(report: &Report, name: &str, verdict: Verdict, text: &str) {
    let all = report.steps.iter().filter(|step| step.name == name);
    let found = all.into_iter().any(|step| {
        step.verdict == verdict && format!("{} {}", step.found, step.remedy).contains(text)
    });
    assert!(found, "no {verdict:?} of {name} with {text:?} in {:#?}", report.steps);
}

/// The steps that are neither fine nor skipped.
fn complaints(report: &Report) -> Vec<&'static str> {
    let bad = |step: &&Step| matches!(step.verdict, Verdict::Warn | Verdict::Fail);
    report.steps.iter().filter(bad).map(|step| step.name).collect()
}
