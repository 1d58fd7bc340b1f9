//! What became of a record: one outcome per batch, shared by the acks of its records.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use annals_wire::v1;
use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Partition.
    pub partition: u32,
    /// Offset in it.
    pub offset: i64,
    /// The server's clock at append, milliseconds since 1970.
    pub append_time_ms: i64,
    /// What the ack means.
    pub durability: v1::Durability,
    /// An answer had got lost: it was sent again, and stored already.
    pub duplicate: bool,
}

/// The outcome of one batch.
#[derive(Debug)]
pub(super) struct BatchAck {
    state: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    outcome: Option<Result<Arc<[v1::PartitionAppend]>>>,
    wakers: Vec<Waker>,
}

impl BatchAck {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default() })
    }

    /// Gives the outcome, once, and wakes whoever waits for it.
    pub(super) fn resolve(&self, outcome: Result<Arc<[v1::PartitionAppend]>>) {
        let wakers = {
            let mut state = self.state.lock();
            debug_assert!(state.outcome.is_none(), "a batch has one outcome");
            state.outcome = Some(outcome);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The promise of an answer for one record: a future. It may be dropped; what failed is still told by `flush` and `close`.
#[derive(Clone, Debug)]
pub struct Ack {
    batch: Arc<BatchAck>,
    index: u32,
    slot: Option<usize>,
}

impl Ack {
    pub(super) fn new(batch: &Arc<BatchAck>, index: u32) -> Self {
        Self { batch: Arc::clone(batch), index, slot: None }
    }
}

impl Future for Ack {
    type Output = Result<Placed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Placed>> {
        let ack = &mut *self;
        let mut state = ack.batch.state.lock();
        if let Some(outcome) = &state.outcome {
            let placed = outcome.as_ref().map_err(Clone::clone).and_then(|appends| {
                place(appends, ack.index).ok_or_else(|| Error::bad_answer("a record has no offset"))
            });
            return Poll::Ready(placed);
        }
        let waker = context.waker();
        if let Some(known) = ack.slot.and_then(|slot| state.wakers.get_mut(slot)) {
            known.clone_from(waker);
        } else {
            ack.slot = Some(state.wakers.len());
            state.wakers.push(waker.clone());
        }
        Poll::Pending
    }
}

/// Where record `index` of a request went.
fn place(appends: &[v1::PartitionAppend], index: u32) -> Option<Placed> {
    for append in appends {
        let nth = if append.record_indexes.is_empty() {
            (index < append.record_count).then_some(i64::from(index))
        } else {
            let at = append.record_indexes.iter().position(|&record| record == index);
            at.and_then(|at| i64::try_from(at).ok())
        };
        if let Some(nth) = nth {
            return Some(Placed {
                partition: append.partition,
                offset: append.base_offset.checked_add(nth)?,
                append_time_ms: append.append_time_ms,
                durability: append.durability(),
                duplicate: append.duplicate,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(partition: u32, base_offset: i64, count: u32, indexes: &[u32]) -> v1::PartitionAppend {
        v1::PartitionAppend {
            partition,
            base_offset,
            record_count: count,
            record_indexes: indexes.to_vec(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn every_record_of_a_batch_learns_its_own_place() {
        let batch = BatchAck::new();
        let (first, second) = (Ack::new(&batch, 0), Ack::new(&batch, 1));
        let waiting = tokio::spawn(second);
        tokio::task::yield_now().await;
        batch.resolve(Ok(vec![append(3, 100, 2, &[])].into()));
        assert_eq!(first.await.unwrap().offset, 100);
        let second = waiting.await.unwrap().unwrap();
        assert_eq!((second.partition, second.offset), (3, 101));
    }

    #[tokio::test]
    async fn a_request_spread_over_partitions_is_told_apart() {
        let batch = BatchAck::new();
        batch.resolve(Ok(vec![append(0, 10, 2, &[0, 3]), append(5, 70, 2, &[1, 2])].into()));
        for (index, want) in [(0, (0, 10)), (1, (5, 70)), (2, (5, 71)), (3, (0, 11))] {
            let placed = Ack::new(&batch, index).await.unwrap();
            assert_eq!((placed.partition, placed.offset), want);
        }
        assert!(Ack::new(&batch, 4).await.is_err());
    }

    #[tokio::test]
    async fn all_waiters_of_a_failed_batch_get_the_error() {
        let batch = BatchAck::new();
        let acks: Vec<_> = (0..3).map(|index| tokio::spawn(Ack::new(&batch, index))).collect();
        tokio::task::yield_now().await;
        batch.resolve(Err(Error::bad_answer("test")));
        for ack in acks {
            assert!(ack.await.unwrap().is_err());
        }
    }
}
