//! What was acked: lines for machines as the acks come, a summary for people at the end.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use annals_client::{Outcome, v1};
use tokio::sync::Notify;

use crate::{
    cli::{
        format::{Format, push_csv_cell, push_json_string},
        rows::{grouped, size},
        values::level_name,
    },
    clock::{Clock as _, SystemClock},
    sync::Mutex,
};

/// Shared between the producer's task, which fills it, and the command, which prints.
#[derive(Debug)]
pub(super) struct Report {
    format: Format,
    clock: SystemClock,
    state: Mutex<Totals>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Totals {
    lines: Vec<u8>,
    began: Duration,
    last_ack: Duration,
    records: i64,
    bytes: i64,
    partitions: BTreeSet<u32>,
    last: Option<v1::PartitionAppend>,
    failed: bool,
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        let mut totals = Totals::default();
        if format == Format::Csv {
            totals.lines.extend_from_slice(b"topic,partition,base_offset,count,durability\n");
        }
        Self { format, clock: SystemClock::new(), state: Mutex::new(totals), changed: Notify::new() }
    }

    /// The clock runs from here.
    pub(super) fn start(&self) {
        self.state.lock().began = self.clock.monotonic();
    }

    /// Takes an outcome; called by the producer.
    pub(super) fn take(&self, outcome: &Outcome) {
        let mut state = self.state.lock();
        match outcome {
            Outcome::Stored { append, bytes } => {
                state.records += i64::from(append.record_count);
                // A request over several partitions counts its bytes with its first.
                let first = append.record_indexes.first().is_none_or(|index| *index == 0);
                state.bytes += if first { i64::try_from(*bytes).unwrap_or(i64::MAX) } else { 0 };
                state.partitions.insert(append.partition);
                state.last_ack = self.clock.monotonic();
                self.push_line(&mut state.lines, append);
                state.last = Some(append.clone());
            }
            Outcome::Failed { .. } => state.failed = true,
        }
        drop(state);
        self.changed.notify_one();
    }

    fn push_line(&self, out: &mut Vec<u8>, append: &v1::PartitionAppend) {
        let level = level_name(append.durability());
        let (partition, base_offset, count) = (append.partition, append.base_offset, append.record_count);
        match self.format {
            Format::Json => {
                out.extend_from_slice(b"{\"topic\":");
                push_json_string(out, &append.topic);
                let rest = format!(
                    ",\"partition\":{partition},\"base_offset\":{base_offset},\"count\":{count},\"durability\":\"{level}\"}}\n"
                );
                out.extend_from_slice(rest.as_bytes());
            }
            Format::Csv => {
                push_csv_cell(out, append.topic.as_bytes());
                out.extend_from_slice(format!(",{partition},{base_offset},{count},{level}\n").as_bytes());
            }
            Format::Raw => {
                let line = format!("{}\t{partition}\t{base_offset}\t{count}\t{level}\n", append.topic);
                out.extend_from_slice(line.as_bytes());
            }
            Format::Table | Format::Template(_) => {}
        }
    }

    /// Resolves when there are new outcomes.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Lines to print since the last call.
    pub(super) fn take_lines(&self) -> Vec<u8> {
        std::mem::take(&mut self.state.lock().lines)
    }

    /// Records acked.
    pub(super) fn acked(&self) -> i64 {
        self.state.lock().records
    }

    /// Something was not stored, or perhaps not.
    pub(super) fn failed(&self) -> bool {
        self.state.lock().failed
    }

    /// A summary is wanted.
    pub(super) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// What a person wants to know at the end.
    pub(super) fn summary(&self, topic: &str) -> String {
        let state = self.state.lock();
        let Some(last) = &state.last else { return "nothing to publish\n".to_owned() };
        let took = state.last_ack.saturating_sub(state.began).as_secs_f64();
        let how = match last.durability() {
            v1::Durability::Fsync => "durable".to_owned(),
            other => format!("written ({})", level_name(other)),
        };
        if state.records == 1 {
            let (partition, offset) = (last.partition, last.base_offset);
            let bytes = size(state.bytes);
            return format!("{topic}[{partition}]@{offset}  {bytes}  {how} in {:.1} ms\n", took * 1000.0);
        }
        let mut text = format!("{topic}  {} records", grouped(state.records));
        let partitions = state.partitions.len();
        // Writing to a String cannot fail.
        let _ = write!(text, " in {partitions} partition{}", if partitions == 1 { "" } else { "s" });
        let _ = write!(text, "  {}  {how} in {took:.2} s", size(state.bytes));
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a rate for people")]
        let rate = (state.records as f64 / took.max(1e-6)) as i64;
        let _ = writeln!(text, "  {} records/s", grouped(rate));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(partition: u32, base_offset: i64, count: u32) -> Outcome {
        let append = v1::PartitionAppend {
            topic: "orders".to_owned(),
            partition,
            base_offset,
            record_count: count,
            durability: v1::Durability::Fsync.into(),
            ..Default::default()
        };
        Outcome::Stored { append, bytes: 24 }
    }

    #[test]
    fn machines_get_a_line_per_batch() {
        let report = Report::new(Format::Json);
        report.take(&stored(2, 7, 3));
        assert_eq!(
            report.take_lines(),
            b"{\"topic\":\"orders\",\"partition\":2,\"base_offset\":7,\"count\":3,\"durability\":\"fsync\"}\n"
        );
        assert_eq!(report.take_lines(), b"");
        assert_eq!(report.acked(), 3);
    }

    #[test]
    fn people_get_the_place_of_one_record_or_a_sum() {
        let report = Report::new(Format::Table);
        assert_eq!(report.summary("orders"), "nothing to publish\n");
        report.take(&stored(2, 0, 1));
        let one = report.summary("orders");
        assert!(one.starts_with("orders[2]@0  24 B  durable in ") && one.ends_with(" ms\n"), "{one}");
        report.take(&stored(3, 0, 1999));
        let sum = report.summary("orders");
        assert!(sum.starts_with("orders  2,000 records in 2 partitions  48 B  durable in "), "{sum}");
    }
}
