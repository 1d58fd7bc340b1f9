//! Where a read begins, and the offsets that means.

use annals_wire::v1;

use crate::{
    client::Client,
    error::{Code, Error, Result, reason},
};

/// Where to begin, before anybody knows the offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// First offset kept.
    Earliest,
    /// High watermark: only what comes from now on.
    Latest,
    /// This offset.
    Offset(i64),
    /// First record at or after this time, milliseconds since 1970.
    TimestampMs(i64),
    /// So many records before the high watermark, or all if fewer are kept.
    LastRecords(u32),
    /// Where this group stands; where it has committed nothing, the first offset kept.
    CommittedBy(String),
}

/// A place in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Topic name.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Offset to read next.
    pub next_offset: i64,
    /// Leader epoch of what was read last: the server then says so if that history is gone.
    pub last_epoch: Option<u32>,
}

impl From<&Position> for v1::FetchPosition {
    fn from(position: &Position) -> Self {
        Self {
            topic: position.topic.clone(),
            partition: Some(position.partition),
            last_epoch: position.last_epoch,
            start: Some(v1::fetch_position::Start::Offset(position.next_offset)),
        }
    }
}

impl Client {
    /// The offsets that `start` means now, in these partitions of a topic; in all of them if none is named.
    pub async fn positions(&self, topic: &str, partitions: &[u32], start: &Start) -> Result<Vec<Position>> {
        let timestamp_ms = if let Start::TimestampMs(ms) = start { Some(*ms) } else { None };
        let known = self.list_offsets(topic, partitions, timestamp_ms).await?;
        let committed = match start {
            Start::CommittedBy(group) => self.offsets(group, &[topic]).await?,
            _ => Vec::new(),
        };
        known.iter().map(|offsets| position(topic, offsets, start, &committed)).collect()
    }
}

fn position(
    topic: &str,
    offsets: &v1::PartitionOffsets,
    start: &Start,
    committed: &[v1::CommittedOffset],
) -> Result<Position> {
    let (earliest, latest) = (offsets.earliest_offset, offsets.latest_offset);
    let mut last_epoch = None;
    let next_offset = match start {
        Start::Earliest => earliest,
        Start::Latest => latest,
        Start::Offset(offset) if *offset > latest => {
            let message = format!(
                "offset {offset} lies beyond the end of {topic}[{}], where {latest} comes next",
                offsets.partition
            );
            return Err(Error::new(Code::OutOfRange, reason::OFFSET_AHEAD, message));
        }
        Start::Offset(offset) => *offset,
        Start::TimestampMs(_) => offsets.timestamp_offset.unwrap_or(latest),
        Start::LastRecords(count) => latest.saturating_sub(i64::from(*count)).max(earliest),
        Start::CommittedBy(_) => {
            let found = committed.iter().find(|at| at.partition == offsets.partition);
            last_epoch = found.map(|at| at.leader_epoch).filter(|epoch| *epoch > 0);
            found.map_or(earliest, |at| at.next_offset)
        }
    };
    Ok(Position { topic: topic.to_owned(), partition: offsets.partition, next_offset, last_epoch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: &Start) -> Result<Position> {
        let offsets = v1::PartitionOffsets {
            partition: 3,
            earliest_offset: 10,
            latest_offset: 20,
            timestamp_offset: matches!(start, Start::TimestampMs(5)).then_some(15),
            leader_epoch: 1,
        };
        let committed =
            v1::CommittedOffset { partition: 3, next_offset: 12, leader_epoch: 7, ..Default::default() };
        let elsewhere = v1::CommittedOffset { partition: 4, next_offset: 99, ..Default::default() };
        let committed = if *start == Start::CommittedBy("new".to_owned()) {
            vec![elsewhere]
        } else {
            vec![elsewhere, committed]
        };
        position("t", &offsets, start, &committed)
    }

    #[test]
    fn every_start_has_its_offset() {
        for (start, want) in [
            (Start::Earliest, 10),
            (Start::Latest, 20),
            (Start::Offset(20), 20),
            (Start::Offset(3), 3),
            (Start::TimestampMs(5), 15),
            (Start::TimestampMs(6), 20),
            (Start::LastRecords(4), 16),
            (Start::LastRecords(400), 10),
            (Start::CommittedBy("g".to_owned()), 12),
            (Start::CommittedBy("new".to_owned()), 10),
        ] {
            assert_eq!(at(&start).unwrap().next_offset, want, "{start:?}");
        }
        assert_eq!(at(&Start::CommittedBy("g".to_owned())).unwrap().last_epoch, Some(7));
    }

    #[test]
    fn an_offset_that_does_not_exist_yet_is_refused() {
        assert_eq!(at(&Start::Offset(21)).unwrap_err().reason(), reason::OFFSET_AHEAD);
    }
}
