//! What was decided and is not in the journal yet, in the order in which it was decided.
//!
//! An item is pushed under the locks under which it was decided, so the order of the queue is the order of every
//! partition and of the state; numbers are given out here and nowhere else.

use std::sync::Arc;

use annals_wire::{ids::TopicId, internal::entry::Body};
use smallvec::SmallVec;

use super::{
    frame::BatchBytes,
    mutant::{Mutant, planted},
    partition::Partition,
    room::Room,
    segment::Segment,
};
use crate::sync::{Condvar, Mutex};

/// Something the commit cycle makes durable.
#[derive(Debug)]
pub(crate) enum Work {
    /// A batch that lies in its segment's page cache.
    Batch(BatchWork),
    /// Everything of a partition up to a place: entered as extents.
    Sync { partition: Arc<Partition>, upto: Upto },
    /// The partition went on in a new segment, which gets header and name before the entry is written.
    Roll { partition: Arc<Partition>, segment: Arc<Segment> },
    /// An entry as it is.
    Entry(Body),
}

/// The work of one item: mostly one batch.
pub(crate) type Works = SmallVec<[Work; 1]>;

/// A place in a partition, between two batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upto {
    pub(crate) segment_base: i64,
    pub(crate) position: u64,
    pub(crate) next_offset: i64,
    pub(crate) epoch: u32,
}

/// A batch on its way into the journal.
#[derive(Debug)]
pub(crate) struct BatchWork {
    pub(crate) partition: Arc<Partition>,
    pub(crate) segment: Arc<Segment>,
    pub(crate) position: u64,
    pub(crate) base_offset: i64,
    pub(crate) next_offset: i64,
    pub(crate) epoch: u32,
    pub(crate) bytes: BatchBytes,
    /// Must stand in the frame itself, because other entries of its item happen only with it.
    pub(crate) inline: bool,
}

impl BatchWork {
    /// The place before it.
    pub(crate) fn before(&self) -> Upto {
        Upto {
            segment_base: self.segment.base,
            position: self.position,
            next_offset: self.base_offset,
            epoch: self.epoch,
        }
    }

    /// The place behind it.
    pub(crate) fn upto(&self) -> Upto {
        Upto {
            segment_base: self.segment.base,
            position: self.position + self.bytes.len() as u64,
            next_offset: self.next_offset,
            epoch: self.epoch,
        }
    }
}

impl Work {
    pub(crate) fn partition(&self) -> Option<&Arc<Partition>> {
        match self {
            Self::Batch(batch) => Some(&batch.partition),
            Self::Sync { partition, .. } | Self::Roll { partition, .. } => Some(partition),
            Self::Entry(_) => None,
        }
    }

    /// The topic that it makes or changes.
    pub(crate) fn topic(&self) -> Option<TopicId> {
        match self {
            Self::Entry(Body::Partitions(message)) => TopicId::from_slice(&message.topic_id),
            _ => None,
        }
    }
}

/// One request's work: all of it in one frame, or none.
#[derive(Debug)]
pub(crate) struct Item {
    /// Number of the first; they rise by one.
    pub(crate) first: u64,
    pub(crate) work: Works,
    /// Space in the ring that was set aside for it; given back when the item is done with.
    _room: Option<Room>,
}

impl Item {
    /// Number of the last.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.work.len() as u64 - 1
    }
}

#[derive(Debug)]
struct Inner {
    items: Vec<Item>,
    next_number: u64,
    closed: bool,
}

/// The queue between those who decide and the commit cycle.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    ready: Condvar,
}

/// The queue takes nothing more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed;

impl Queue {
    pub(crate) fn new(next_number: u64) -> Self {
        Self {
            inner: Mutex::new(Inner { items: Vec::new(), next_number, closed: false }),
            ready: Condvar::new(),
        }
    }

    /// Appends an item and returns the number of its first entry.
    pub(crate) fn push(&self, work: Works, room: Option<Room>) -> Result<u64, Closed> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Closed);
        }
        let first = inner.next_number;
        if work.is_empty() {
            return Ok(first);
        }
        inner.next_number += work.len() as u64;
        let was_empty = inner.items.is_empty();
        let (work, apart) = apart(work);
        let second = first + work.len() as u64;
        inner.items.push(Item { first, work, _room: room });
        inner.items.extend(apart.map(|work| Item { first: second, work, _room: None }));
        drop(inner);
        if was_empty {
            self.ready.notify_one();
        }
        Ok(first)
    }

    /// Moves everything there is into an empty list, whose room the queue goes on with.
    pub(crate) fn take(&self, into: &mut Vec<Item>) {
        debug_assert!(into.is_empty(), "what is in it would be queued again");
        std::mem::swap(&mut self.inner.lock().items, into);
    }

    /// Number the next entry will get.
    pub(crate) fn next_number(&self) -> u64 {
        self.inner.lock().next_number
    }

    /// Takes nothing more from now on.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.ready.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().items.is_empty()
    }

    /// Waits until there is an item or the queue is closed, at most so long.
    pub(crate) fn wait(&self, at_most: std::time::Duration) {
        let mut inner = self.inner.lock();
        if inner.items.is_empty() && !inner.closed {
            self.ready.wait_for(&mut inner, at_most);
        }
    }
}
/// An item's work is one item: nothing of it happens without the rest. See [`Mutant::EntriesApart`].
fn apart(mut work: Works) -> (Works, Option<Works>) {
    let entries = work.iter().position(|work| matches!(work, Work::Entry(_))).filter(|at| *at > 0);
    let apart = entries.filter(|_| planted(Mutant::EntriesApart)).map(|at| work.drain(at..).collect());
    (work, apart)
}
