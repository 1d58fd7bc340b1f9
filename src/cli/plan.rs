//! What a position means: offsets, in each partition of a topic.

use std::collections::BTreeMap;

use annals_client::{Client, Position as At, v1};

use super::{
    exit::{Exit, Failure},
    position::Position,
};

/// A partition to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Partition.
    pub(crate) partition: u32,
    /// Offset to begin with.
    pub(crate) from: i64,
    /// High watermark when it was planned.
    pub(crate) end: i64,
    /// Where the group stands, if it has committed here.
    pub(crate) committed: Option<i64>,
    /// Leader epoch the group has committed with, where it is read on from there.
    pub(crate) last_epoch: Option<u32>,
}

impl Planned {
    /// As the client wants it.
    pub(crate) fn position(&self, topic: &str) -> At {
        At {
            topic: topic.to_owned(),
            partition: self.partition,
            next_offset: self.from,
            last_epoch: self.last_epoch,
        }
    }
}

/// Asks the server for what `position` means now. Without a position: where the group stands, else the first record kept.
pub(crate) async fn plan(
    client: &Client,
    topic: &str,
    partition: Option<u32>,
    position: Option<Position>,
    group: Option<&str>,
    now_ms: i64,
) -> Result<Vec<Planned>, Failure> {
    let timestamp_ms = position.and_then(|position| position.timestamp_ms(now_ms));
    let offsets = client.list_offsets(topic, partition.as_slice(), timestamp_ms).await?;
    let committed = match group {
        Some(group) => client.offsets(group, &[topic]).await?,
        None => Vec::new(),
    };
    let committed: BTreeMap<u32, &v1::CommittedOffset> =
        committed.iter().map(|offset| (offset.partition, offset)).collect();
    offsets
        .iter()
        .map(|offsets| {
            let stands = committed.get(&offsets.partition).copied();
            place(topic, offsets, stands, position, partition.is_some(), group)
        })
        .collect()
}

fn place(
    topic: &str,
    offsets: &v1::PartitionOffsets,
    stands: Option<&v1::CommittedOffset>,
    position: Option<Position>,
    exact: bool,
    group: Option<&str>,
) -> Result<Planned, Failure> {
    let (earliest, end) = (offsets.earliest_offset, offsets.latest_offset);
    let committed = stands.map(|at| at.next_offset);
    let mut last_epoch = None;
    let from = match position {
        None => {
            last_epoch = stands.map(|at| at.leader_epoch).filter(|epoch| *epoch > 0);
            committed.unwrap_or(earliest)
        }
        Some(Position::Start) => earliest,
        Some(Position::End) => end,
        // One offset for many partitions means: those that reach so far.
        Some(Position::Offset(offset)) if exact => offset,
        Some(Position::Offset(offset)) => offset.clamp(earliest, end),
        Some(Position::BeforeEnd(count)) => end.saturating_sub(i64::from(count)).max(earliest),
        Some(Position::AfterGroup(count)) => {
            if group.is_none() {
                return Err(Failure::usage(format!("+{count} counts from where a group stands"))
                    .next("Name the group: -g GROUP"));
            }
            committed.unwrap_or(earliest).saturating_add(i64::from(count)).min(end)
        }
        Some(Position::Ago(_) | Position::Time(_)) => offsets.timestamp_offset.unwrap_or(end),
    };
    let partition = offsets.partition;
    if from > end {
        let what =
            format!("offset {from} lies beyond the end of {topic}[{partition}], where {end} comes next");
        return Err(Failure::new(Exit::Failed, what).next("The last records: -o -10"));
    }
    Ok(Planned { partition, from, end, committed, last_epoch })
}

/// A group only moves forward: reading again under its name would either move it back or commit nothing.
pub(crate) fn check_forward(topic: &str, group: &str, planned: &[Planned]) -> Result<(), Failure> {
    for at in planned {
        if let Some(stands) = at.committed.filter(|stands| at.from < *stands) {
            let what = format!(
                "group \"{group}\" stands at {stands} in {topic}[{}], and -o would read again from {}",
                at.partition, at.from
            );
            return Err(
                Failure::new(Exit::Conflict, what).next("To read again, leave out -g, or take another group")
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, group: bool, stands: Option<i64>, exact: bool) -> Result<i64, Failure> {
        let offsets = v1::PartitionOffsets {
            partition: 0,
            earliest_offset: 10,
            latest_offset: 20,
            timestamp_offset: (text == "@-1h").then_some(15),
            leader_epoch: 1,
        };
        let stands = stands.map(|next_offset| v1::CommittedOffset { next_offset, ..Default::default() });
        let position = (!text.is_empty()).then(|| text.parse().unwrap());
        place("t", &offsets, stands.as_ref(), position, exact, group.then_some("g"))
            .map(|planned| planned.from)
    }

    #[test]
    fn positions_become_offsets() {
        for (text, want) in
            [("", 10), ("start", 10), ("end", 20), ("-3", 17), ("-99", 10), ("@-1h", 15), ("@-2h", 20)]
        {
            assert_eq!(at(text, false, None, true).unwrap(), want, "{text}");
        }
        assert_eq!(at("", true, Some(12), true).unwrap(), 12);
        assert_eq!(at("+5", true, Some(12), true).unwrap(), 17);
        assert_eq!(at("+5", true, None, true).unwrap(), 15);
        assert_eq!(at("+50", true, Some(12), true).unwrap(), 20);
    }

    #[test]
    fn an_offset_is_exact_for_one_partition_and_a_bound_for_many() {
        assert_eq!(at("42", false, None, false).unwrap(), 20);
        assert_eq!(at("3", false, None, false).unwrap(), 10);
        assert_eq!(at("3", false, None, true).unwrap(), 3);
        assert_eq!(at("42", false, None, true).unwrap_err().exit, Exit::Failed);
    }

    #[test]
    fn counting_from_a_group_needs_one() {
        assert_eq!(at("+5", false, None, true).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_group_does_not_go_back() {
        let planned = |from| Planned { partition: 0, from, end: 20, committed: Some(12), last_epoch: None };
        assert!(check_forward("t", "g", &[planned(12), planned(15)]).is_ok());
        assert_eq!(check_forward("t", "g", &[planned(15), planned(11)]).unwrap_err().exit, Exit::Conflict);
    }
}
