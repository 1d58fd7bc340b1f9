//! What a test says in the end: a table for people or one JSON object, and always what it did not test.

use annals_client::v1::Durability;
use serde_json::json;

use super::findings::Findings;
use crate::{
    cli::{
        rows::{grouped, size},
        values::level_name,
    },
    model::Outcome,
};

/// What the conductor counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Kills that took answers with them.
    pub(super) kills: u32,
    /// Lives that ended by a kill, counted or not.
    pub(super) lives: u32,
    /// Starts killed within 50 ms.
    pub(super) storm_kills: u32,
    /// Events whose answer a kill took.
    pub(super) unknown: u64,
    /// Topics checked as a whole and deleted, before the last.
    pub(super) rounds: u32,
    pub(super) recoveries_ms: Vec<u64>,
    /// Bytes of torn tails that starts cut.
    pub(super) cut_bytes: u64,
    /// What the broker refused though it was alive.
    pub(super) refusals: Vec<String>,
}

/// The power-cut model's part.
#[derive(Clone, Debug, Default)]
pub(super) struct Cuts {
    pub(super) seeds: u64,
    pub(super) outcome: Outcome,
    /// The first seeds that break a promise, and which.
    pub(super) failures: Vec<(u64, String)>,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) findings: Findings,
    /// The first things that were not as they should be.
    pub(super) evidence: Vec<String>,
    pub(super) tally: Tally,
    pub(super) level: Durability,
    pub(super) producers: u32,
    pub(super) consumers: u32,
    /// Damages that `log verify` sees in the directory; `None`: it was not looked at.
    pub(super) damages: Option<Vec<String>>,
    pub(super) cuts: Cuts,
    /// Address of the listener.
    pub(super) journal: Option<String>,
    pub(super) interrupted: bool,
    /// What ended the test before its time.
    pub(super) trouble: Option<String>,
    /// Where everything was left.
    pub(super) kept: Option<String>,
}

impl Report {
    /// No promise was broken.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_clean()
            && self.cuts.failures.is_empty()
            && self.damages.as_ref().is_none_or(Vec::is_empty)
    }

    fn verdict(&self) -> &'static str {
        match (self.is_clean(), &self.trouble, self.interrupted) {
            (false, ..) => "broken",
            (true, Some(_), _) => "failed",
            (true, None, true) => "interrupted",
            (true, None, false) => "kept",
        }
    }

    /// What it did not test.
    pub(super) fn not_tested(&self) -> Vec<String> {
        let mut not = Vec::new();
        if let Some(address) = &self.journal {
            not.push(format!(
                "a power loss, unless you pulled the plug: the acks are at {address}; compare with annals crash-test --check"
            ));
        } else {
            not.push(
                "a power loss of this disk: kill -9 leaves the page cache alone, so a disk that lies about flushes is not \
                 found out. Pull the plug with --journal"
                    .to_owned(),
            );
        }
        if self.level != Durability::Fsync {
            not.push(format!(
                "what {} gives up in a power cut: kill -9 takes nothing from it",
                level_name(self.level)
            ));
        }
        not.push("loss of the disk itself: there is one copy".to_owned());
        not
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let found = &self.findings;
        let violations: serde_json::Map<String, serde_json::Value> =
            found.violations().iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        let recovery = Percentiles::of(&self.tally.recoveries_ms);
        let mut object = json!({
            "verdict": self.verdict(),
            "kills": self.tally.lives,
            "kills_with_batches_in_flight": self.tally.kills,
            "kills_within_50ms_of_start": self.tally.storm_kills,
            "acked": found.acked,
            "acked_batches": found.batches,
            "found": found.found,
            "twice_explained_by_lost_acks": found.twice_explained,
            "acks_lost": self.tally.unknown,
            "read": found.read,
            "read_bytes": found.bytes,
            "commits_acked": found.commits,
            "topics": self.tally.rounds + 1,
            "torn_bytes_cut": self.tally.cut_bytes,
            "recovery_ms": {
                "starts": self.tally.recoveries_ms.len(),
                "p50": recovery.p50,
                "p99": recovery.p99,
                "max": recovery.max,
            },
            "evidence": self.evidence,
            "damages": self.damages,
            "durability": level_name(self.level),
            "producers": self.producers,
            "consumers": self.consumers,
            "model": {
                "seeds": self.cuts.seeds,
                "power_cuts": self.cuts.outcome.cuts,
                "power_cuts_in_recovery": self.cuts.outcome.cuts_in_recovery,
                "kills": self.cuts.outcome.kills,
                "recoveries": self.cuts.outcome.recoveries,
                "acked_batches": self.cuts.outcome.acked,
                "violations": self.cuts.failures.iter()
                    .map(|(seed, what)| json!({"seed": seed, "what": what})).collect::<Vec<_>>(),
            },
            "journal": self.journal,
            "not_tested": self.not_tested(),
            "refused": self.tally.refusals,
            "trouble": self.trouble,
            "directory": self.kept,
        });
        if let Some(object) = object.as_object_mut() {
            object.extend(violations);
        }
        object
    }

    pub(super) fn table(&self) -> String {
        let found = &self.findings;
        let number = |count: u64| grouped(i64::try_from(count).unwrap_or(i64::MAX));
        let recovery = Percentiles::of(&self.tally.recoveries_ms);
        let mut lines = vec![
            format!(
                "kill -9              {}, {} of them with batches in flight",
                self.tally.lives, self.tally.kills
            ),
            format!("restart storms       {} starts killed within 50 ms", self.tally.storm_kills),
            format!(
                "acked                {} events in {} batches, {}, at {}",
                number(found.acked),
                number(found.batches),
                size(i64::try_from(found.bytes).unwrap_or(i64::MAX)),
                level_name(self.level)
            ),
            format!("found                {} at their offsets with their exact bytes", number(found.found)),
        ];
        for (name, count) in found.violations() {
            lines.push(format!("{:<20} {}", name.replace('_', " "), number(count)));
        }
        lines.extend(self.evidence.iter().map(|what| format!("  {what}")));
        lines.push(format!(
            "twice, explained     {} (of {} events whose ack was lost, those that were stored and sent again)",
            number(found.twice_explained),
            number(self.tally.unknown)
        ));
        lines.push(format!(
            "commits              {} acked, by {} groups",
            number(found.commits),
            self.consumers
        ));
        lines.push(format!(
            "recovery             p50 {} ms, p99 {} ms, max {} ms over {} starts; {} bytes of torn tails cut",
            recovery.p50,
            recovery.p99,
            recovery.max,
            self.tally.recoveries_ms.len(),
            number(self.tally.cut_bytes)
        ));
        match &self.damages {
            Some(damages) if damages.is_empty() => lines.push("log verify           intact".into()),
            Some(damages) => {
                lines.extend(damages.iter().map(|damage| format!("log verify           DAMAGED {damage}")));
            }
            None => lines.push("log verify           not run".into()),
        }
        lines.push(format!(
            "model of power cuts  {} histories, {} cuts ({} in recovery), {} kills: {} broken",
            number(self.cuts.seeds),
            number(self.cuts.outcome.cuts + self.cuts.outcome.cuts_in_recovery),
            number(self.cuts.outcome.cuts_in_recovery),
            number(self.cuts.outcome.kills),
            self.cuts.failures.len()
        ));
        lines.extend(self.cuts.failures.iter().map(|(seed, what)| format!("  seed {seed}: {what}")));
        lines.extend(self.not_tested().iter().map(|what| format!("NOT tested           {what}")));
        lines.extend(self.tally.refusals.iter().map(|what| format!("refused              {what}")));
        lines.extend(self.trouble.iter().map(|what| format!("ended early          {what}")));
        lines.extend(self.kept.iter().map(|place| format!("left in              {place}")));
        lines.push(
            match self.verdict() {
                "kept" => "Every promise was kept.",
                "interrupted" => "Interrupted; up to then every promise was kept.",
                "failed" => "The test could not be brought to its end; what was checked was right.",
                _ => "A PROMISE WAS BROKEN.",
            }
            .to_owned(),
        );
        lines.join("\n") + "\n"
    }
}

/// What `--check` says.
#[derive(Clone, Debug)]
pub(super) struct CheckReport {
    pub(super) findings: Findings,
    /// The first things that were not as they should be.
    pub(super) evidence: Vec<String>,
    pub(super) level: Durability,
    /// Bytes of a torn last frame of the listener's file.
    pub(super) torn: u64,
    /// What `log verify` saw before the broker was started.
    pub(super) damages: Vec<String>,
    /// Why the broker did not start.
    pub(super) trouble: Option<String>,
}

impl CheckReport {
    /// No promise was broken.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_clean() && self.damages.is_empty() && self.trouble.is_none()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let found = &self.findings;
        let mut object = json!({
            "verdict": if self.is_clean() { "kept" } else { "broken" },
            "acked": found.acked,
            "acked_batches": found.batches,
            "found": found.found,
            "read": found.read,
            "twice_explained_by_lost_acks": found.twice_explained,
            "gone_within_level": found.within_level,
            "commits_acked": found.commits,
            "durability": level_name(self.level),
            "torn_bytes_of_the_file": self.torn,
            "evidence": self.evidence,
            "damages": self.damages,
            "trouble": self.trouble,
        });
        if let Some(object) = object.as_object_mut() {
            object.extend(found.violations().iter().map(|(name, count)| ((*name).to_owned(), json!(count))));
        }
        object
    }

    pub(super) fn table(&self) -> String {
        let found = &self.findings;
        let number = |count: u64| grouped(i64::try_from(count).unwrap_or(i64::MAX));
        let mut lines = vec![
            format!("acked                {} events, at {}", number(found.acked), level_name(self.level)),
            format!("found                {} at their offsets with their exact bytes", number(found.found)),
        ];
        for (name, count) in found.violations() {
            lines.push(format!("{:<20} {}", name.replace('_', " "), number(count)));
        }
        lines.extend(self.evidence.iter().map(|what| format!("  {what}")));
        lines.push(format!("twice, explained     {}", number(found.twice_explained)));
        if self.level != Durability::Fsync {
            lines.push(format!(
                "gone within level    {} (a power cut may take the tail of a topic at {})",
                number(found.within_level),
                level_name(self.level)
            ));
        }
        if self.torn > 0 {
            lines.push(format!(
                "the file of acks     ends in {} bytes of a frame that was cut off",
                self.torn
            ));
        }
        lines.extend(self.damages.iter().map(|damage| format!("log verify           DAMAGED {damage}")));
        lines.extend(self.trouble.iter().map(|what| format!("nothing is served    {what}")));
        let verdict = if self.is_clean() { "Every promise was kept." } else { "A PROMISE WAS BROKEN." };
        lines.push(verdict.to_owned());
        lines.join("\n") + "\n"
    }
}

/// A level's number in the listener's file.
pub(super) fn number_of(level: Durability) -> u8 {
    match level {
        Durability::Unspecified | Durability::Fsync => 3,
        Durability::Interval => 2,
        Durability::Os => 1,
    }
}

/// The level of a number.
pub(super) fn level_of(number: u8) -> Option<Durability> {
    [Durability::Os, Durability::Interval, Durability::Fsync]
        .into_iter()
        .find(|level| number_of(*level) == number)
}

/// Of the times of starts.
struct Percentiles {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Percentiles {
    fn of(values: &[u64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| {
            sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0)
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}
