//! What a server says when it is ready: a few lines for people, or one object for programs; and, by topic, what recovery
//! found, kept and cut, to both and to the log.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use annals_wire::ids::TopicId;
use serde_json::{Value, json};

use super::{Address, Config, Server, config::level_name};
use crate::{
    broker::TopicInfo,
    state,
    storage::{Level, PartitionReport, Report},
};

/// Most topics that are told one by one; all are logged.
const MOST_TOPICS: usize = 20;
/// Most topics in the object for programs.
const MOST_TOPICS_JSON: usize = 1000;

/// In which form a server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// The first line of standard output is one JSON object.
    Json,
}

/// Says that the server is ready, and what recovery found.
pub(super) fn print(output: Output, server: &Server, topics: &[TopicInfo]) -> io::Result<()> {
    let (config, address, report) = (server.config(), server.address(), server.report());
    let found = Found::of_all(topics, report);
    log(report, &found);
    let text = match output {
        Output::Text => for_people(config, address, report, &found),
        Output::Json => format!("{}\n", for_programs(config, address, report, &found)),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What recovery found of a topic, kept and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    name: String,
    id: TopicId,
    partitions: usize,
    level: Level,
    /// Records there are.
    kept: u64,
    /// Batches that the journal held and that were written to their segments again.
    rewritten: u64,
    /// Records behind the journal's end that were whole, and kept.
    walked: u64,
    /// Bytes behind the end that were never acked, and were wiped.
    cut: u64,
    /// Positions beyond the end that were lowered to it: group, partition, next offset.
    lowered: Vec<(String, u32, i64)>,
    /// Partitions that are not served, and why.
    closed: Vec<(u32, String)>,
}

impl Found {
    fn of_all(topics: &[TopicInfo], report: &Report) -> Vec<Self> {
        let lowered = state::lowered(&report.lowered_commits);
        topics.iter().map(|topic| Self::of(topic, &report.partitions, &lowered)).collect()
    }

    fn of(
        topic: &TopicInfo,
        partitions: &[PartitionReport],
        lowered: &[(String, crate::storage::PartitionKey, i64)],
    ) -> Self {
        let of_topic = || partitions.iter().filter(|report| report.key.topic == topic.topic_id);
        let kept: i64 = topic.partitions.iter().map(|held| held.high_watermark - held.log_start_offset).sum();
        Self {
            name: topic.name.to_string(),
            id: topic.topic_id,
            partitions: topic.partitions.len(),
            level: topic.level,
            kept: u64::try_from(kept).unwrap_or_default(),
            rewritten: of_topic().map(|report| report.replayed_batches).sum(),
            walked: of_topic().map(|report| report.walked_records).sum(),
            cut: of_topic().map(|report| report.cut_bytes).sum(),
            lowered: lowered
                .iter()
                .filter(|(_, key, _)| key.topic == topic.topic_id)
                .map(|(group, key, offset)| (group.clone(), key.partition, *offset))
                .collect(),
            closed: of_topic()
                .filter_map(|report| Some((report.key.partition, report.closed.clone()?)))
                .collect(),
        }
    }

    /// `flights  8 partitions  fsync  kept 14 records, nothing cut`
    fn line(&self) -> String {
        let cut = match self.cut {
            0 => "nothing cut".to_owned(),
            bytes => format!("{} bytes cut", grouped(bytes)),
        };
        let mut text = format!(
            "{}  {} partitions  {}  kept {} records, {cut}",
            self.name,
            self.partitions,
            level_name(self.level),
            grouped(self.kept)
        );
        let mut add = |more: std::fmt::Arguments<'_>| {
            text.write_fmt(more).expect("a String takes every write");
        };
        if self.rewritten > 0 {
            add(format_args!("; {} batches written again from the journal", grouped(self.rewritten)));
        }
        if self.walked > 0 {
            add(format_args!("; {} records found behind the journal's end", grouped(self.walked)));
        }
        for (group, partition, offset) in &self.lowered {
            add(format_args!("; group {group} lowered to {offset} in [{partition}]"));
        }
        for (partition, why) in &self.closed {
            add(format_args!("; [{partition}] not served: {why}"));
        }
        text
    }

    fn json(&self) -> Value {
        let lowered = |(group, partition, offset): &(String, u32, i64)| json!({"group": group, "partition": partition, "next_offset": offset});
        json!({
            "topic": self.name,
            "topic_id": self.id.to_string(),
            "partitions": self.partitions,
            "durability": level_name(self.level),
            "kept": self.kept,
            "rewritten_batches": self.rewritten,
            "walked_records": self.walked,
            "cut": self.cut,
            "lowered": self.lowered.iter().map(lowered).collect::<Vec<_>>(),
            "closed": self.closed.iter()
                .map(|(partition, why)| json!({"partition": partition, "why": why})).collect::<Vec<_>>(),
        })
    }
}

/// The same, field by field, for whoever keeps logs: what costs somebody something as a warning.
fn log(report: &Report, found: &[Found]) {
    tracing::info!(
        epoch = report.epoch,
        clean = report.clean,
        frames = report.frames,
        records = report.records,
        topics = report.topics,
        cut_bytes = report.cut_bytes,
        milliseconds = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
        "recovered"
    );
    for topic in found {
        tracing::info!(
            topic = topic.name,
            topic_id = %topic.id,
            durability = level_name(topic.level),
            epoch = report.epoch,
            kept = topic.kept,
            rewritten_batches = topic.rewritten,
            walked_records = topic.walked,
            cut_bytes = topic.cut,
            lowered = topic.lowered.len(),
            closed = topic.closed.len(),
            "recovered topic"
        );
        for (group, partition, next_offset) in &topic.lowered {
            tracing::warn!(
                topic = topic.name,
                group,
                partition,
                next_offset,
                epoch = report.epoch,
                "a committed position was lowered to where its log ends now"
            );
        }
        for (partition, why) in &topic.closed {
            tracing::error!(topic = topic.name, partition, why, "a partition is not served");
        }
    }
    for damage in &report.damages {
        tracing::error!(damage, "damaged");
    }
}

fn for_people(config: &Config, address: &Address, report: &Report, found: &[Found]) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).expect("a String takes every write");
        text.push('\n');
    };
    line(format_args!("Annals {}  data {}  gRPC {address}", env!("CARGO_PKG_VERSION"), place(config)));
    let cut = match report.cut_bytes {
        0 => "nothing cut".to_owned(),
        bytes => format!("{} bytes cut", grouped(bytes)),
    };
    let acks = match config.durability {
        Level::Fsync if config.ephemeral => "everything is in memory and gone when the server ends",
        Level::Fsync => "acks wait for the disk (fsync)",
        Level::Interval => "acks do not wait for the disk (interval)",
        Level::Os => "acks do not wait for the disk (os)",
    };
    line(format_args!(
        "recovered {} records in {} topics, {cut}, epoch {}, in {} ms; {acks}",
        grouped(report.records),
        grouped(report.topics as u64),
        report.epoch,
        report.duration.as_millis()
    ));
    for topic in found.iter().take(MOST_TOPICS) {
        line(format_args!("  {}", topic.line()));
    }
    if let Some(more) = found.len().checked_sub(MOST_TOPICS).filter(|more| *more > 0) {
        line(format_args!("  and {more} more topics: annals topic list"));
    }
    for damage in &report.damages {
        line(format_args!("  damaged: {damage}. Look closer: annals log verify {}", place(config)));
    }
    text
}

fn for_programs(config: &Config, address: &Address, report: &Report, found: &[Found]) -> Value {
    json!({
        "grpc": address.to_string(),
        "port": address.port(),
        "data": place(config),
        "version": env!("CARGO_PKG_VERSION"),
        "recovery": {
            "records": report.records,
            "topics": report.topics,
            "cut": report.cut_bytes,
            "milliseconds": u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
            "epoch": report.epoch,
            "clean": report.clean,
            "frames": report.frames,
            "damages": report.damages,
            "by_topic": found.iter().take(MOST_TOPICS_JSON).map(Found::json).collect::<Vec<_>>(),
        },
    })
}

fn place(config: &Config) -> String {
    if config.ephemeral { "(memory)".into() } else { config.data.display().to_string() }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broker::PartitionInfo, state::write_entry, storage::PartitionKey};
    use annals_wire::internal::{GroupPosition, OffsetsCommitted, state_entry::Body};

    fn topic(number: u8, name: &str) -> TopicInfo {
        let held = |partition| PartitionInfo {
            partition,
            log_start_offset: 10,
            high_watermark: 1_510,
            bytes: 0,
            leader_epoch: 1,
        };
        TopicInfo {
            name: name.into(),
            topic_id: TopicId::from_slice(&[number; 16]).unwrap(),
            created_ms: 0,
            level: Level::Os,
            segment_bytes: 0,
            interval_ms: 0,
            interval_bytes: 0,
            partitions: vec![held(0), held(1)],
        }
    }

    fn report(number: u8, partition: u32) -> PartitionReport {
        PartitionReport {
            key: PartitionKey { topic: TopicId::from_slice(&[number; 16]).unwrap(), partition },
            replayed_batches: 3,
            walked_records: 20,
            cut_bytes: 1_024,
            log_start: 10,
            end: 1_510,
            closed: (partition == 1).then(|| "its file is missing".to_owned()),
        }
    }

    #[test]
    fn each_topic_is_told_what_was_kept_and_cut_and_whose_positions_were_lowered() {
        let position = GroupPosition {
            topic_id: vec![1; 16].into(),
            partition: 1,
            next_offset: 1_510,
            ..GroupPosition::default()
        };
        let lowered = OffsetsCommitted { group: "billing".into(), positions: vec![position] };
        let report = Report {
            partitions: vec![report(1, 0), report(1, 1), report(9, 0)],
            lowered_commits: vec![write_entry(Body::OffsetsCommitted(lowered))],
            ..Report::default()
        };
        let found = Found::of_all(&[topic(1, "orders"), topic(2, "quiet")], &report);
        assert_eq!(
            found[0].line(),
            "orders  2 partitions  os  kept 3,000 records, 2,048 bytes cut; 6 batches written again from the journal; 40 \
             records found behind the journal's end; group billing lowered to 1510 in [1]; [1] not served: its file is \
             missing"
        );
        assert_eq!(found[1].line(), "quiet  2 partitions  os  kept 3,000 records, nothing cut");
        let json = found[0].json();
        assert_eq!((json["kept"].as_u64(), json["cut"].as_u64()), (Some(3_000), Some(2_048)));
        assert_eq!(json["lowered"][0]["group"], "billing");
        assert_eq!(json["closed"][0]["partition"], 1);
    }

    #[test]
    fn numbers_are_grouped_in_threes() {
        for (number, text) in [(0, "0"), (12, "12"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
