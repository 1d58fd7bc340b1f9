//! A bench's report: a table, or one JSON object; and the files of `--out`.

use std::{fs, io::Write as _, path::Path, time::Duration};

use hdrhistogram::serialization::{
    V2DeflateSerializer, interval_log::IntervalLogWriterBuilder, interval_log::Tag,
};
use serde::Serialize;

use super::{
    figures::{Run, Spread, Summary, summarize},
    session::{Session, file_system},
};
use crate::cli::{
    exit::{Exit, Failure, io_failure},
    format::Format,
    out::{Out, talk},
    rows::{Cell, Rows, span},
};

/// What was measured, and how.
#[derive(Debug, Serialize)]
struct Report<'a> {
    bench: &'a str,
    version: &'static str,
    /// The flags that matter, in words.
    settings: &'a str,
    runs: usize,
    duration_ms: u64,
    warmup_ms: u64,
    server: &'a str,
    cpus: usize,
    file_system: &'static str,
    figures: &'a [Summary],
}

/// Prints the report, and writes it where `--out` says.
pub(super) fn print(session: &Session, bench: &str, settings: &str, runs: &[Run]) -> Result<Exit, Failure> {
    let figures = summarize(runs);
    let common = &session.common;
    let report = Report {
        bench,
        version: env!("CARGO_PKG_VERSION"),
        settings,
        runs: runs.len(),
        duration_ms: milliseconds(common.duration),
        warmup_ms: milliseconds(common.warmup),
        server: session.server(),
        cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        file_system: file_system(session.directory()),
        figures: &figures,
    };
    if let Some(dir) = &common.out {
        write(dir, &report, runs).map_err(|error| {
            io_failure(format_args!("the report cannot be written to {}", dir.display()), &error)
        })?;
    }
    let out = Out::new();
    let format = Format::choose(common.format.as_ref(), out.terminal);
    if format == Format::Json {
        return out.finish(&json(&report), Exit::Ok);
    }
    talk(heading(&report));
    if session.server_process().is_none() && bench != "limits" {
        talk(
            "the server is not this bench's own: what it costs is not known, and the limits are this machine's",
        );
    }
    rows(&figures).print(out, Some(&format), Exit::Ok)
}

fn heading(report: &Report<'_>) -> String {
    format!(
        "{}: {}; median of {} x {} after {}; {} CPUs, {}",
        report.bench,
        report.settings,
        report.runs,
        time(report.duration_ms),
        time(report.warmup_ms),
        report.cpus,
        report.file_system
    )
}

fn time(ms: u64) -> String {
    span(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn json(report: &Report<'_>) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(report).expect("numbers and texts always serialize");
    bytes.push(b'\n');
    bytes
}

const COLUMNS: &[&str] = &["what", "median", "min", "max", "unit", "fraction", "of", "limit"];

fn rows(figures: &[Summary]) -> Rows {
    let mut rows = Rows::new(COLUMNS);
    for figure in figures {
        let Spread { median, min, max } = figure.value;
        let (fraction, of, limit) = match &figure.limit {
            Some(limit) => (
                Cell::Real(limit.fraction.median),
                Cell::Text(limit.name.clone()),
                Cell::Real(limit.value.median),
            ),
            None => ("".into(), "".into(), "".into()),
        };
        rows.push([
            Cell::Text(figure.name.clone()),
            Cell::Real(median),
            Cell::Real(min),
            Cell::Real(max),
            figure.unit.into(),
            fraction,
            of,
            limit,
        ]);
    }
    rows
}

fn write(dir: &Path, report: &Report<'_>, runs: &[Run]) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("report.json"), json(report))?;
    for (kind, _) in runs.first().iter().flat_map(|run| &run.latencies) {
        let log = log(report, kind, runs)?;
        fs::File::create(dir.join(format!("{}.hlog", kind.replace(' ', "-"))))?.write_all(&log)?;
    }
    Ok(())
}

/// A histogram log: one line per run, tagged with its number; values are nanoseconds, the maxima shown are milliseconds.
fn log(report: &Report<'_>, kind: &str, runs: &[Run]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let comment = format!("annals {} {}: {kind}, ns; {}", report.version, report.bench, report.settings);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&comment)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut bytes, &mut serializer)?;
    let length = Duration::from_millis(report.duration_ms);
    let mut start = Duration::ZERO;
    for (number, run) in runs.iter().enumerate() {
        let latencies = run.latencies.iter().filter(|(other, _)| *other == kind);
        let tag = format!("run-{}", number + 1);
        for (_, latencies) in latencies {
            log.write_histogram(latencies.histogram(), start, length, Tag::new(&tag))
                .map_err(|error| std::io::Error::other(format!("{error:?}")))?;
        }
        start += length;
    }
    Ok(bytes)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::{
        Histogram,
        serialization::{
            Deserializer,
            interval_log::{IntervalLogIterator, LogEntry},
        },
    };

    use super::*;
    use crate::cli::bench::{figures::Figure, schedule::Latencies};

    fn report(figures: &[Summary]) -> Report<'_> {
        Report {
            bench: "unary",
            version: "1",
            settings: "records of 100 B",
            runs: 2,
            duration_ms: 5000,
            warmup_ms: 1000,
            server: "its own",
            cpus: 2,
            file_system: "ext4",
            figures,
        }
    }

    fn runs() -> Vec<Run> {
        let run = |ms| {
            let mut latencies = Latencies::new();
            latencies.record(Duration::ZERO, Duration::from_millis(ms));
            let mut run = Run::default();
            run.push(Figure::new("throughput", "MB/s", 2.0).against("TCP", 4.0));
            run.latencies("ack", latencies, |_| None);
            run
        };
        vec![run(1), run(9)]
    }

    #[test]
    fn the_files_hold_every_run_as_other_tools_read_it() {
        let (dir, runs) = (tempfile::tempdir().unwrap(), runs());
        let figures = summarize(&runs);
        write(dir.path(), &report(&figures), &runs).unwrap();
        let written: serde_json::Value =
            serde_json::from_slice(&fs::read(dir.path().join("report.json")).unwrap()).unwrap();
        assert_eq!(written["figures"][0]["limit"]["fraction"]["median"], 0.5);
        let log = fs::read(dir.path().join("ack.hlog")).unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                use base64::Engine as _;
                let packed =
                    base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram()).unwrap();
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut packed.as_slice()).unwrap();
                found.push((interval.tag().unwrap().as_str().to_owned(), histogram.max() / 1_000_000));
            }
        }
        assert_eq!(found, [("run-1".to_owned(), 1), ("run-2".to_owned(), 9)]);
    }

    #[test]
    fn a_figure_without_a_limit_leaves_its_columns_empty() {
        let figures = summarize(&runs());
        let json = String::from_utf8(json(&report(&figures))).unwrap();
        assert_eq!(json.lines().count(), 1, "one object");
        assert!(figures[1].limit.is_none() && figures[0].limit.is_some());
        assert!(!rows(&figures).is_empty());
    }
}
