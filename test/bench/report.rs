//! The tables, for the terminal and for RESULTS.md, and the same as JSON.

use std::fmt::Write;

use crate::plan::PLAN;
use crate::results::{Median, Results};
use crate::subject::Kind;
use crate::targets::TARGETS;
use crate::world::{World, words};

/// What it ran on: no names of hosts.
pub(crate) fn machine(world: &World) -> Vec<(&'static str, String)> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let nginx = std::process::Command::new("nginx").arg("-v").output();
    let nginx = nginx.map(|it| String::from_utf8_lossy(&it.stderr).trim().to_owned());
    let haproxy = world.haproxy.as_ref().and_then(|path| {
        let text = words(path.to_str()?, &["-v"]);
        text.lines().next().map(str::to_owned)
    });
    vec![
        ("cores", cores.to_string()),
        ("CPU", model.map_or_else(String::new, |(_, name)| name.to_owned())),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("2ptth", words("git", &["describe", "--always", "--dirty"])),
        ("nginx", nginx.unwrap_or_default()),
        ("HAProxy", haproxy.unwrap_or_else(|| "left out: none ≥ 3.0 here".to_owned())),
        ("h2load", words("h2load", &["--version"])),
        ("system calls", world.strace.clone().unwrap_or_else(|why| why)),
    ]
}

/// All tables, in Markdown, which can be read on a terminal, too.
pub(crate) fn tables(results: &Results, machine: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    for (what, value) in machine {
        let _ = writeln!(text, "* {what}: {value}");
    }
    targets(&mut text, results);
    for workload in PLAN {
        let figures = results.figures(workload.name);
        if figures.is_empty() {
            continue;
        }
        let mut rows = vec![vec![workload.name.to_owned()]];
        rows[0].extend(figures.iter().map(|name| heading(name)));
        for kind in results.subjects(workload.name) {
            let cell = |figure: &&str| {
                let median = results.median(workload.name, kind, figure);
                let base = results.ratio(workload.name, figure, (kind, base(workload.name)));
                median.map_or_else(|| "–".to_owned(), |it| cell(figure, it, base))
            };
            let mut row = vec![kind.name().to_owned()];
            row.extend(figures.iter().map(cell));
            rows.push(row);
        }
        let _ = writeln!(text, "\n**{}**\n", workload.about);
        table(&mut text, &rows);
    }
    for (workload, kind, why) in &results.voids {
        let _ = writeln!(text, "\nVoid: {workload}, {}: {why}", kind.name());
    }
    text
}

fn targets(text: &mut String, results: &Results) {
    let mut rows = vec![["target", "measured", "bound", "verdict"].map(str::to_owned).to_vec()];
    for target in TARGETS {
        if let Some((value, bound, verdict)) = target.verdict(results) {
            rows.push(vec![target.about.to_owned(), value, bound, verdict]);
        }
    }
    if rows.len() > 1 {
        text.push('\n');
        table(text, &rows);
    }
}

/// Whom the ratios in a table compare with.
fn base(workload: &str) -> Kind {
    if workload.starts_with("far") { Kind::Tcp } else { Kind::Direct }
}

fn cell(figure: &str, Median { value, spread }: Median, ratio: Option<f64>) -> String {
    let value = if figure.ends_with("bytes_s") { value / 1e6 } else { value };
    let digits = if value >= 1000.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let mut text = format!("{value:.digits$} ±{:.0} %", spread * 50.0);
    if let Some(ratio) = ratio.filter(|ratio| *ratio != 1.0) {
        let _ = write!(text, " ({ratio:.2}×)");
    }
    text
}

/// What a figure is called in a table.
fn heading(figure: &str) -> String {
    let figure = figure.replace("us_request", "CPU µs/request").replace("ns_byte", "CPU ns/byte");
    let figure = figure.replace("us_handshake", "CPU µs/handshake").replace("bytes_s", "MB/s");
    let figure = figure.replace("requests_s", "requests/s").replace("handshakes_s", "handshakes/s");
    let figure = figure.replace("calls_request", "system calls/request");
    let figure = figure.replace("_us", " µs").replace("kib", "KiB each").replace("mib", "MiB");
    figure.replace('_', " ")
}

fn table(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} "));
        let _ = writeln!(text, "|{}|", cells.collect::<Vec<_>>().join("|"));
        if number == 0 {
            let rules = widths.iter().map(|width| "-".repeat(width + 2));
            let _ = writeln!(text, "|{}|", rules.collect::<Vec<_>>().join("|"));
        }
    }
}

/// All figures of all turns.
pub(crate) fn json(results: &Results, machine: &[(&'static str, String)]) -> String {
    let mut items = Vec::new();
    for ((workload, kind), turns) in results.turns() {
        let figures = results.figures(workload).into_iter().map(|figure| {
            let values = turns.iter().filter_map(|values| values.get(figure));
            let values: Vec<_> = values.map(f64::to_string).collect();
            format!("{}:[{}]", quoted(figure), values.join(","))
        });
        let figures: Vec<_> = figures.collect();
        let (workload, kind) = (quoted(workload), quoted(kind.name()));
        let figures = figures.join(",");
        items.push(format!(
            "{{\"workload\":{workload},\"subject\":{kind},\"figures\":{{{figures}}}}}"
        ));
    }
    let verdicts = TARGETS.iter().filter_map(|target| {
        let (value, bound, verdict) = target.verdict(results)?;
        let [about, bound, verdict] = [target.about, &bound, &verdict].map(quoted);
        Some(format!(
            "{{\"target\":{about},\"measured\":{value},\"bound\":{bound},\"verdict\":{verdict}}}"
        ))
    });
    let voids = results.voids.iter().map(|(workload, kind, why)| {
        let [workload, kind, why] = [workload, kind.name(), why].map(quoted);
        format!("{{\"workload\":{workload},\"subject\":{kind},\"why\":{why}}}")
    });
    let machine = machine.iter().map(|(what, value)| format!("{}:{}", quoted(what), quoted(value)));
    format!(
        "{{\n\"machine\":{{{}}},\n\"targets\":[\n{}],\n\"voids\":[{}],\n\"runs\":[\n{}]\n}}\n",
        machine.collect::<Vec<_>>().join(","),
        verdicts.collect::<Vec<_>>().join(",\n"),
        voids.collect::<Vec<_>>().join(","),
        items.join(",\n"),
    )
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
