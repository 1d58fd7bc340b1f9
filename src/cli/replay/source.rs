//! What is replayed: a range of offsets in each partition, read on until all of it was handed out.

use std::collections::BTreeMap;

use annals_client::{Client, FetchOptions, Filter, Position, Records};

use crate::cli::exit::Failure;

/// What is left of a partition's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Offset to read next.
    pub(super) next: i64,
    /// First offset that is not in it.
    pub(super) to: i64,
}

impl Span {
    pub(super) fn is_empty(self) -> bool {
        self.next >= self.to
    }
}

/// Reads ranges.
#[derive(Debug)]
pub(super) struct Source {
    client: Client,
    topic: String,
    options: FetchOptions,
    /// Those that are not empty.
    left: BTreeMap<u32, Span>,
}

/// Records as they came, of which those below `to` are asked for.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) records: Records,
    pub(super) to: i64,
}

impl Piece {
    pub(super) fn partition(&self) -> u32 {
        self.records.partition()
    }

    /// Offset after what was read of the range.
    pub(super) fn next(&self) -> i64 {
        self.records.next_offset().min(self.to)
    }
}

/// Partitions asked for at a time.
const AT_A_TIME: usize = 256;

impl Source {
    pub(super) fn new(
        client: &Client,
        topic: &str,
        filter: Option<Filter>,
        spans: BTreeMap<u32, Span>,
    ) -> Self {
        let left = spans.into_iter().filter(|(_, span)| !span.is_empty()).collect();
        let options = FetchOptions { filter, ..FetchOptions::default() };
        Self { client: client.clone(), topic: topic.to_owned(), options, left }
    }

    /// Partitions of which there is more to come.
    pub(super) fn left(&self) -> impl Iterator<Item = u32> {
        self.left.keys().copied()
    }

    pub(super) fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Reads on, in as many of these partitions as is sensible at a time.
    pub(super) async fn read(&mut self, partitions: &[u32]) -> Result<Vec<Piece>, Failure> {
        let wanted = partitions.iter().filter_map(|partition| Some((*partition, *self.left.get(partition)?)));
        let position = |(partition, span): (u32, Span)| Position {
            topic: self.topic.clone(),
            partition,
            next_offset: span.next,
            last_epoch: None,
        };
        let positions: Vec<_> = wanted.take(AT_A_TIME).map(position).collect();
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let fetched = self.client.fetch(&positions, &self.options).await?;
        if let Some(failed) = fetched.failures.into_iter().next() {
            let place = format!("{}[{}]", failed.topic, failed.partition);
            return Err(Failure::from(failed.error).while_doing(place));
        }
        let mut pieces = Vec::with_capacity(fetched.slices.len());
        for records in fetched.slices {
            let Some(span) = self.left.get_mut(&records.partition()) else { continue };
            let piece = Piece { to: span.to, records };
            span.next = piece.next();
            if span.is_empty() {
                self.left.remove(&piece.partition());
            }
            pieces.push(piece);
        }
        Ok(pieces)
    }
}
