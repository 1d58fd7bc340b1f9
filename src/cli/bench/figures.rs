//! What a run measured, and what several runs say together: the median, the range, and the fraction of what the machine can
//! do, which is taken run by run, since a machine is not the same from second to second.

use std::time::Duration;

use serde::Serialize;

use super::{observe::Observed, schedule::Latencies};

/// One figure of one run.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) value: f64,
    pub(super) limit: Option<Limit>,
}

/// What a figure is measured against.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) value: f64,
}

impl Figure {
    pub(super) fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self { name: name.into(), unit, value, limit: None }
    }

    /// Beside what the machine did in the same run.
    pub(super) fn against(mut self, name: impl Into<String>, value: f64) -> Self {
        self.limit = Some(Limit { name: name.into(), value });
        self
    }
}

/// Figures and latencies of one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) figures: Vec<Figure>,
    /// By name, for the files.
    pub(super) latencies: Vec<(&'static str, Latencies)>,
}

impl Run {
    pub(super) fn push(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Records and bytes per second of a window.
    pub(super) fn rates(&mut self, observed: &Observed, limit: Option<(String, f64)>) {
        let mut bytes = Figure::new("throughput", "MB/s", per_second(observed.bytes, observed.time) / 1e6);
        if let Some((name, value)) = limit {
            bytes = bytes.against(name, value);
        }
        self.push(bytes);
        self.push(Figure::new("records", "records/s", per_second(observed.records, observed.time)));
    }

    /// What a window cost. Time of processors is told per byte where bytes are what counts, else per record.
    pub(super) fn costs(&mut self, observed: &Observed, per: Per) {
        for (name, cpu) in [("server CPU", observed.server_cpu), ("client CPU", observed.client_cpu)] {
            let Some(cpu) = cpu else { continue };
            self.push(match per {
                Per::Gigabyte => Figure::new(name, "s/GB", cpu.as_secs_f64() / (real(observed.bytes) / 1e9)),
                Per::Record => Figure::new(name, "us/record", micros(cpu) / real(observed.records)),
            });
        }
        let memories = [("server", observed.server_memory), ("client", observed.client_memory)];
        for (name, memory) in memories.into_iter().filter_map(|(name, memory)| Some((name, memory?))) {
            self.push(Figure::new(format!("{name} peak RSS"), "MB", real(memory.resident) / 1e6));
            self.push(Figure::new(format!("{name} peak RSS, no files"), "MB", real(memory.anonymous) / 1e6));
        }
    }

    /// The percentiles of a kind of latency; `limits` may know some of them.
    pub(super) fn latencies(
        &mut self,
        kind: &'static str,
        latencies: Latencies,
        limit: impl Fn(&str) -> Option<(String, f64)>,
    ) {
        let points = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];
        for (name, percent) in points {
            let value = if percent < 100.0 { latencies.percentile(percent) } else { latencies.max() };
            let mut figure = Figure::new(format!("{kind} {name}"), "us", micros(value));
            if let Some((name, value)) = limit(name) {
                figure = figure.against(name, value);
            }
            self.push(figure);
        }
        self.latencies.push((kind, latencies));
    }
}

/// What the time of processors is divided by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Per {
    Gigabyte,
    Record,
}

/// Median and range over the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let (half, odd) = (values.len() / 2, values.len() % 2 == 1);
        let median = if odd { at(half) } else { f64::midpoint(at(half.saturating_sub(1)), at(half)) };
        Self { median, min: at(0), max: at(values.len().saturating_sub(1)) }
    }
}

/// A figure over all runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) unit: &'static str,
    #[serde(flatten)]
    pub(super) value: Spread,
    pub(super) runs: Vec<f64>,
    pub(super) limit: Option<SummaryOfLimit>,
}

/// A limit over all runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SummaryOfLimit {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) value: Spread,
    /// The figure divided by its limit, run by run.
    pub(super) fraction: Spread,
}

/// Puts the runs' figures together, in the order of the first run.
pub(super) fn summarize(runs: &[Run]) -> Vec<Summary> {
    let Some(first) = runs.first() else { return Vec::new() };
    let all = |name: &str| -> Vec<&Figure> {
        runs.iter().filter_map(|run| run.figures.iter().find(|figure| figure.name == name)).collect()
    };
    let summary = |figure: &Figure| {
        let figures = all(&figure.name);
        let values: Vec<f64> = figures.iter().map(|figure| figure.value).collect();
        let limits: Vec<(f64, f64)> =
            figures.iter().filter_map(|figure| Some((figure.value, figure.limit.as_ref()?.value))).collect();
        let limit = figure.limit.as_ref().map(|limit| SummaryOfLimit {
            name: limit.name.clone(),
            value: Spread::of(limits.iter().map(|(_, limit)| *limit).collect()),
            fraction: Spread::of(limits.iter().map(|(value, limit)| value / limit).collect()),
        });
        let value = Spread::of(values.clone());
        Summary { name: figure.name.clone(), unit: figure.unit, value, runs: values, limit }
    };
    first.figures.iter().map(summary).collect()
}

/// A count as a number that can be divided.
#[allow(clippy::cast_precision_loss, reason = "figures have three or four digits")]
pub(super) fn real(count: u64) -> f64 {
    count as f64
}

/// So many in such a time, per second.
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    real(count) / time.as_secs_f64()
}

/// In microseconds.
pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_runs_and_the_range_is_all_of_them() {
        let spread = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(spread(&[4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(spread(&[5.0]), Spread { median: 5.0, min: 5.0, max: 5.0 });
    }

    #[test]
    fn a_fraction_is_taken_run_by_run() {
        // The machine was half as fast in the second run: the fraction does not mind.
        let run = |value, limit| Run {
            figures: vec![
                Figure::new("throughput", "MB/s", value).against("TCP", limit),
                Figure::new("x", "MB", 1.0),
            ],
            latencies: Vec::new(),
        };
        let all = summarize(&[run(800.0, 1000.0), run(400.0, 500.0), run(900.0, 1000.0)]);
        assert_eq!(all.len(), 2);
        let limit = all[0].limit.as_ref().unwrap();
        assert_eq!(limit.fraction, Spread { median: 0.8, min: 0.8, max: 0.9 });
        assert_eq!((limit.value.median, all[0].value.median), (1000.0, 800.0));
        assert_eq!(all[0].runs, [800.0, 400.0, 900.0]);
        assert!(all[1].limit.is_none());
    }

    #[test]
    fn costs_of_an_unknown_server_are_left_out() {
        let observed = Observed {
            time: Duration::from_secs(2),
            records: 1000,
            bytes: 2_000_000_000,
            client_cpu: Some(Duration::from_secs(1)),
            ..Observed::default()
        };
        let mut run = Run::default();
        run.rates(&observed, None);
        run.costs(&observed, Per::Gigabyte);
        let figures: Vec<(&str, f64)> =
            run.figures.iter().map(|figure| (figure.name.as_str(), figure.value)).collect();
        assert_eq!(figures, [("throughput", 1000.0), ("records", 500.0), ("client CPU", 0.5)]);
    }
}
