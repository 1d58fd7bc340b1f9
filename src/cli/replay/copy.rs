//! Into another topic, with keys, headers and times.
//!
//! Records and the place they were read from are stored as one step (`AppendAndCommit`): whatever is killed, a replay that goes on
//! has every record once. The place is a group's, named after both topics, which is there as long as the replay is not
//! finished; two processes at once are told from each other by where they expect it to stand.

use std::collections::BTreeMap;

use annals_client::{Client, NewRecord, Step, v1};

use super::{
    place::{note, read_note},
    source::Span,
};
use crate::cli::{
    exit::{Exit, Failure},
    format::{Headers, View},
};

/// Bytes of a step, about; far below what a partition takes at once.
const STEP: usize = 256 << 10;
/// Bytes of a record beside key and value, about.
const RECORD: usize = 32;

#[derive(Debug)]
pub(super) struct Copy {
    client: Client,
    topic: String,
    into: String,
    group: String,
    asked: u32,
    /// Where each partition stands.
    spans: BTreeMap<u32, Span>,
    /// Where each partition will stand once the step is done.
    reached: BTreeMap<u32, i64>,
    step: Step,
    bytes: usize,
}

/// The group in which the place of such a replay is kept.
pub(super) fn group(topic: &str, into: &str) -> String {
    format!("replay.{topic}.{into}")
}

impl Copy {
    /// Begins, or goes on: `resume`. The ranges are those of the beginning.
    pub(super) async fn begin(
        client: &Client,
        topic: &str,
        into: &str,
        asked: u32,
        resume: bool,
        spans: BTreeMap<u32, Span>,
    ) -> Result<Self, Failure> {
        let group = group(topic, into);
        let stands = client.offsets(&group, &[topic]).await?;
        let spans = match (stands.is_empty(), resume) {
            (true, _) => spans,
            (false, true) => unfinished(&group, asked, &stands)?,
            (false, false) => {
                let what = format!("a replay of \"{topic}\" into \"{into}\" is not finished");
                let next = format!("Go on with --resume, or begin anew after: annals group delete {group}");
                return Err(Failure::new(Exit::Conflict, what).next(next));
            }
        };
        let step = client.step();
        let copy = Self {
            client: client.clone(),
            topic: topic.to_owned(),
            into: into.to_owned(),
            group,
            asked,
            spans,
            reached: BTreeMap::new(),
            step,
            bytes: 0,
        };
        if stands.is_empty() && !copy.spans.is_empty() {
            // The place comes first: a replay that was killed is known to be unfinished.
            let positions =
                copy.spans.iter().map(|(partition, span)| copy.position(*partition, span.next, span.to));
            client.commit(&copy.group, positions.collect()).await?;
        }
        Ok(copy)
    }

    pub(super) fn spans(&self) -> BTreeMap<u32, Span> {
        self.spans.clone()
    }

    pub(super) fn record<'a, H: Headers<'a>>(&mut self, record: &View<'a, H>) -> Result<(), Failure> {
        let headers: Vec<_> = record.headers.clone().collect();
        let copy = NewRecord {
            key: record.key,
            value: record.value,
            headers: &headers,
            timestamp_ms: Some(record.timestamp_ms),
            partition: None,
        };
        self.step.push(&self.into, &copy)?;
        let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        let headers: usize = headers.iter().map(|(name, value)| name.len() + length(*value) + 8).sum();
        self.bytes += RECORD + length(record.key) + length(record.value) + headers;
        Ok(())
    }

    pub(super) fn reached(&mut self, partition: u32, next: i64) {
        self.reached.insert(partition, next);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= STEP
    }

    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        let mut step = std::mem::replace(&mut self.step, self.client.step());
        self.bytes = 0;
        for (partition, next) in std::mem::take(&mut self.reached) {
            let Some(span) = self.spans.get_mut(&partition).filter(|span| span.next < next) else { continue };
            let expected_offset = Some(std::mem::replace(&mut span.next, next));
            let to = span.to;
            step.commit(
                &self.group,
                v1::CommitPosition { expected_offset, ..self.position(partition, next, to) },
            );
        }
        if !step.is_empty() {
            self.client.append_and_commit(step).await?;
        }
        Ok(())
    }

    /// All of it is there: the place is needed no more.
    pub(super) async fn finish(&self) -> Result<(), Failure> {
        if self.spans.is_empty() { Ok(()) } else { Ok(self.client.delete_group(&self.group).await?) }
    }

    fn position(&self, partition: u32, next_offset: i64, to: i64) -> v1::CommitPosition {
        let metadata = note(to, self.asked);
        v1::CommitPosition {
            topic: self.topic.clone(),
            partition,
            next_offset,
            metadata,
            ..Default::default()
        }
    }
}

/// Where a replay stands that was stopped.
fn unfinished(
    group: &str,
    asked: u32,
    stands: &[v1::CommittedOffset],
) -> Result<BTreeMap<u32, Span>, Failure> {
    let mut spans = BTreeMap::new();
    for at in stands {
        let Some((to, before)) = read_note(&at.metadata) else {
            let what = format!("group \"{group}\" was not made by a replay");
            return Err(
                Failure::new(Exit::Conflict, what).next(format!("See: annals group describe {group}"))
            );
        };
        if before != asked {
            let what = "the replay that was stopped asked for other records: the same key, type, headers and partition are needed";
            return Err(Failure::new(Exit::Conflict, what)
                .next(format!("Ask for the same, or begin anew after: annals group delete {group}")));
        }
        spans.insert(at.partition, Span { next: at.next_offset, to });
    }
    Ok(spans)
}
