//! What a server says when it is ready: two lines for people, or one object for programs.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use super::{Address, Config, Server, config::level_name};
use crate::{
    broker::TopicInfo,
    storage::{Level, PartitionReport, Report},
};

/// Most topics that are told one by one.
const MOST_TOPICS: usize = 20;

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
    let text = match output {
        Output::Text => for_people(config, address, report, topics),
        Output::Json => format!("{}\n", for_programs(config, address, report)),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn for_people(config: &Config, address: &Address, report: &Report, topics: &[TopicInfo]) -> String {
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
        "recovered {} records in {} topics, {cut}, in {} ms; {acks}",
        grouped(report.records),
        grouped(report.topics as u64),
        report.duration.as_millis()
    ));
    for topic in topics.iter().take(MOST_TOPICS) {
        line(format_args!("  {}", found(topic, &report.partitions)));
    }
    if let Some(more) = topics.len().checked_sub(MOST_TOPICS).filter(|more| *more > 0) {
        line(format_args!("  and {more} more topics: annals topic list"));
    }
    if report.lowered_commits > 0 {
        line(format_args!(
            "  {} committed positions lowered to where their logs end now",
            report.lowered_commits
        ));
    }
    for damage in &report.damages {
        line(format_args!("  damaged: {damage}. Look closer: annals log verify {}", place(config)));
    }
    text
}

/// What recovery found of a topic, kept and cut.
fn found(topic: &TopicInfo, partitions: &[PartitionReport]) -> String {
    let of_topic = || partitions.iter().filter(|report| report.key.topic == topic.topic_id);
    let kept: i64 = topic.partitions.iter().map(|held| held.high_watermark - held.log_start_offset).sum();
    let cut: u64 = of_topic().map(|report| report.cut_bytes).sum();
    let cut = if cut == 0 { "nothing cut".to_owned() } else { format!("{} bytes cut", grouped(cut)) };
    let mut text = format!(
        "{}  {} partitions  {}  kept {} records, {cut}",
        topic.name,
        topic.partitions.len(),
        level_name(topic.level),
        grouped(u64::try_from(kept).unwrap_or_default())
    );
    for report in of_topic() {
        if let Some(why) = &report.closed {
            write!(text, "; [{}] not served: {why}", report.key.partition)
                .expect("a String takes every write");
        }
    }
    text
}

fn for_programs(config: &Config, address: &Address, report: &Report) -> serde_json::Value {
    serde_json::json!({
        "grpc": address.to_string(),
        "port": address.port(),
        "data": place(config),
        "version": env!("CARGO_PKG_VERSION"),
        "recovery": {
            "records": report.records,
            "topics": report.topics,
            "cut": report.cut_bytes,
            "milliseconds": u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
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

    #[test]
    fn numbers_are_grouped_in_threes() {
        for (number, text) in [(0, "0"), (12, "12"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
