// long: one cycle, read from top to bottom: its order is its correctness.
//! The commit cycle: takes all that was decided and makes it durable with one flush.
//!
//! A step function. In production a thread calls it whenever the queue has something; tests and the crash model call it
//! themselves. There is no timer: the flush is the batching window.
//!
//! 1. A cycle makes, in this order: segment flushes (extents, sync points, new segments), frames, one flush of the ring,
//!    high watermarks, acks. Nothing is released before the flush that covers it has returned.
//! 2. A partition's entries keep their order. Its batches go into the frame as they are, or, where it has much
//!    pending, their segment is flushed first and the frame says so in an extent.
//! 3. A batch that happens together with other entries of its request stands in the frame itself.
//! 4. A batch of a partition below `fsync` is entered only after everything before it in that partition was flushed and entered.
//! 5. A failed segment flush fences the partition and fails every item of the cycle that touches it, whole, and so
//!    on through those items' partitions, and through all of a topic that one of them changes. A failed journal write or flush ends everything.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    sync::Arc,
    time::Duration,
};

use annals_wire::internal::{Entry, InlineBatch, SegmentList, SegmentRef, entry::Body};
use bytes::Bytes;

use super::{
    extent::{self, OpenRuns, ReadBack},
    frame::FrameBuilder,
    key::PartitionKey,
    mutant::{Mutant, planted},
    partition::Partition,
    queue::{BatchWork, Item, Upto, Work},
    ring::{Place, Ring},
    segment::Segment,
    storage::{Storage, sync_point},
    waiters::Due,
};

/// Payload of a frame beyond which the cycle begins another one between two items.
const FRAME_TARGET: u64 = 4 * 1024 * 1024;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// Something became durable.
    Committed,
    /// The journal failed: no step will do anything any more.
    Failed,
}

/// The commit thread's own things.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) ring: Ring,
    /// The last frame holds entries, and no later frame says yet that it is durable.
    unproven: bool,
}

/// Where the journal stood after a cycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tip {
    /// The next frame.
    pub(crate) place: Place,
    /// Number of the last entry before it.
    pub(crate) number: u64,
}

impl Committer {
    pub(crate) fn new(ring: Ring) -> Self {
        Self { ring, unproven: false }
    }

    pub(crate) fn tip(&self) -> Tip {
        Tip { place: self.ring.next(), number: self.ring.last_number() }
    }
}

/// What a cycle works with. It is kept from one cycle to the next, so that a cycle allocates only to grow.
#[derive(Default)]
pub(crate) struct Cycle {
    items: Vec<Item>,
    plan: Plan,
    open: OpenRuns,
    frame: FrameBuilder,
    due: Vec<Due>,
}

/// Room that is kept of what a large cycle took: items, partitions, callbacks.
const KEPT: usize = 1024;

impl Cycle {
    fn clear(&mut self) {
        self.items.clear();
        self.items.shrink_to(KEPT);
        self.due.shrink_to(KEPT);
        self.open.clear();
        self.frame.clear();
        self.plan.clear();
    }
}

impl fmt::Debug for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cycle").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

/// What a cycle is about to do.
#[derive(Default)]
struct Plan {
    /// Bytes that each partition has pending and that need not stand in the frame.
    pending: HashMap<PartitionKey, u64>,
    /// How far each partition will be entered by what came before in this cycle.
    reached: HashMap<PartitionKey, i64>,
    /// Partitions with so much pending that their bytes are flushed in place.
    extents: HashSet<PartitionKey>,
    fenced: HashSet<PartitionKey>,
    /// Entries given up.
    failed: Vec<u64>,
    touched: HashMap<PartitionKey, Arc<Partition>>,
    /// Of segments to be flushed, those of which something is entered that is in no frame and not in memory.
    unread: Vec<(Arc<Partition>, Arc<Segment>)>,
    back: ReadBack,
}

impl Plan {
    fn clear(&mut self) {
        fn emptied<V>(map: &mut HashMap<PartitionKey, V>) {
            map.clear();
            map.shrink_to(KEPT);
        }
        emptied(&mut self.pending);
        emptied(&mut self.reached);
        emptied(&mut self.touched);
        self.extents.clear();
        self.extents.shrink_to(KEPT);
        self.fenced.clear();
        self.failed.clear();
        self.unread.clear();
        self.back.clear();
    }
}

impl Storage {
    /// One commit cycle.
    pub fn commit_step(self: &Arc<Self>) -> Step {
        let mut cycle = self.cycle().lock();
        let mut committer = self.committer().lock();
        let Cycle { items, plan, open, frame, due } = &mut *cycle;
        self.queue().take(items);
        if items.is_empty() {
            return Step::Idle;
        }
        let last = items.iter().map(Item::last).max().unwrap_or_default();
        if planted(Mutant::ExtentsToPresentEnd) {
            move_sync_points(items);
        }
        choose(items, plan, self.options().inline_bytes);
        self.flush_segments(items, plan);
        if planted(Mutant::AckBeforeFrame) {
            self.release(last, plan, due);
        }
        if let Err(error) = Self::write_frames(&mut committer.ring, items, plan, open, frame, last) {
            self.fail(&format!("the journal could not be written: {error}"));
            cycle.clear();
            return Step::Failed;
        }
        committer.unproven = true;
        self.set_tip(committer.tip());
        self.ledger()
            .set_available(committer.ring.available(self.options().largest_item()), committer.ring.size());
        drop(committer);
        fail_lost(items, plan);
        items.clear();
        self.release(last, plan, due);
        cycle.clear();
        Step::Committed
    }

    /// Writes the empty frame that proves the last one, if that is still to be done. Call after ten idle milliseconds.
    pub fn idle_step(&self) -> Step {
        let unproven = self.committer().lock().unproven;
        if unproven { self.mark_frame() } else { Step::Idle }
    }

    /// Writes and flushes an empty frame.
    pub(crate) fn mark_frame(&self) -> Step {
        let mut committer = self.committer().lock();
        if self.failure().is_some() {
            return Step::Failed;
        }
        committer.unproven = false;
        let written =
            committer.ring.write(&mut FrameBuilder::default()).and_then(|()| committer.ring.flush());
        if let Err(error) = written {
            self.fail(&format!("the journal could not be written: {error}"));
            return Step::Failed;
        }
        self.set_tip(committer.tip());
        self.ledger()
            .set_available(committer.ring.available(self.options().largest_item()), committer.ring.size());
        Step::Committed
    }

    /// How long after the last cycle [`Storage::idle_step`] is due.
    pub const IDLE: Duration = Duration::from_millis(10);

    /// Flushes what must be flushed before the frames, and takes out the items that cannot be entered.
    fn flush_segments(self: &Arc<Self>, items: &mut Vec<Item>, plan: &mut Plan) {
        self.notice_faults();
        for item in &*items {
            for partition in item.work.iter().filter_map(Work::partition) {
                plan.touched.entry(partition.key()).or_insert_with(|| Arc::clone(partition));
                if partition.is_fenced() && !planted(Mutant::FenceForgotten) {
                    plan.fenced.insert(partition.key());
                }
            }
        }
        for work in items.iter().flat_map(|item| &item.work) {
            if let Work::Roll { partition, segment } = work
                && !plan.fenced.contains(&partition.key())
                && let Err(error) =
                    segment.put_in_place(self.root(), partition.bounds().log_start, self.clock().wall_ms())
            {
                self.fence(partition, &error);
                plan.fenced.insert(partition.key());
            }
        }
        let segments = to_flush(items, plan);
        let mut failed = self.flush_all(&segments);
        let Plan { unread, back, .. } = plan;
        failed.extend(unread.drain(..).filter_map(|(partition, segment)| {
            let error = back.read(&partition, &segment).err()?;
            Some((partition, error))
        }));
        for (partition, error) in failed {
            self.fence(&partition, &error);
            plan.fenced.insert(partition.key());
        }
        let found = |partition: &&Arc<Partition>| partition.is_fenced() && !planted(Mutant::FenceForgotten);
        let fenced = plan.touched.values().filter(found);
        plan.fenced.extend(fenced.map(|partition| partition.key()));
        self.give_up(items, plan);
        for key in &plan.fenced {
            if let Some(partition) = plan.touched.get(key) {
                partition.fence("what failed in another partition concerned it, too");
            }
        }
    }

    /// Takes out every item that touches a fenced partition, fences what else those items touch, and so on. A topic whose
    /// change is given up is fenced whole: memory has partitions of it that no start will know.
    fn give_up(&self, items: &mut Vec<Item>, plan: &mut Plan) {
        if planted(Mutant::FailedItemHalfEntered) {
            let doomed = |work: &Work| {
                work.partition().is_some_and(|partition| plan.fenced.contains(&partition.key()))
            };
            for item in items {
                item.work.retain(|work| !doomed(work));
            }
            return;
        }
        loop {
            let before = items.len();
            items.retain(|item| {
                let keys = || item.work.iter().filter_map(Work::partition).map(|partition| partition.key());
                let doomed = keys().any(|key| plan.fenced.contains(&key));
                if doomed {
                    if !planted(Mutant::FenceNotSpread) {
                        plan.fenced.extend(keys());
                    }
                    let topics = item.work.iter().filter_map(Work::topic);
                    for partition in topics.flat_map(|topic| self.partitions(&topic)) {
                        if !planted(Mutant::MadeInVain) {
                            plan.fenced.insert(partition.key());
                            plan.touched.entry(partition.key()).or_insert(partition);
                        }
                    }
                    plan.failed.extend(item.first..=item.last());
                }
                !doomed
            });
            if items.len() == before {
                return;
            }
        }
    }

    fn write_frames(
        ring: &mut Ring,
        items: &[Item],
        plan: &Plan,
        open: &mut OpenRuns,
        frame: &mut FrameBuilder,
        last: u64,
    ) -> io::Result<()> {
        for item in items {
            let size = item.work.iter().map(size_of).sum::<u64>() + open.size();
            let used = frame.payload_len() as u64;
            if used > 0 && (used + size > FRAME_TARGET || used + size > ring.payload_room()) {
                ring.write(frame)?;
            }
            for (index, work) in item.work.iter().enumerate() {
                if planted(Mutant::FrameSplitsRequest) && index > 0 {
                    ring.write(frame)?;
                }
                let number = item.first + index as u64;
                Self::enter(frame, open, plan, number, work);
            }
        }
        open.close_all(frame);
        // Also when nothing is left to enter: frames before it may be waiting for the flush, and the numbers are spent.
        frame.reaches(last);
        ring.write(frame)?;
        ring.flush()
    }

    fn enter(frame: &mut FrameBuilder, open: &mut OpenRuns, plan: &Plan, number: u64, work: &Work) {
        match work {
            Work::Entry(body) => {
                frame.push(&Entry { number, may_ignore: false, body: Some(body.clone()) });
            }
            Work::Roll { partition, segment } => {
                open.close(partition.key(), frame);
                let body = Body::Segments(SegmentList {
                    topic_id: Bytes::copy_from_slice(partition.key().topic.as_bytes()),
                    partition: partition.key().partition,
                    added: vec![SegmentRef {
                        base: segment.base,
                        generation: segment.generation(),
                        location: String::new(),
                        end: 0,
                    }],
                    removed: Vec::new(),
                });
                frame.push(&Entry { number, may_ignore: false, body: Some(body) });
            }
            Work::Sync { partition, upto } => {
                open.close(partition.key(), frame);
                enter_upto(frame, plan, partition, number, *upto);
            }
            Work::Batch(batch) if !batch.inline && plan.extents.contains(&batch.partition.key()) => {
                enter_before(frame, plan, open, number, batch);
                open.add(number, batch, frame);
                *batch.partition.entered.lock() = Some(batch.upto());
            }
            Work::Batch(batch) => {
                open.close(batch.partition.key(), frame);
                enter_before(frame, plan, open, number, batch);
                let topic = batch.partition.key().topic;
                frame.push_batch(number, &topic, &place_of(batch), &batch.bytes);
                *batch.partition.entered.lock() = Some(batch.upto());
            }
        }
    }

    fn release(self: &Arc<Self>, last: u64, plan: &Plan, due: &mut Vec<Due>) {
        let last = if planted(Mutant::AckByLaterPosition) { self.last_number() } else { last };
        self.set_durable(last);
        for partition in plan.touched.values() {
            partition.publish(last);
        }
        self.release_waiters(last, plan.failed.iter().copied(), due);
    }
}

/// What lies before a batch and was never entered: bytes written below `fsync`. They were flushed in this cycle.
fn enter_before(frame: &mut FrameBuilder, plan: &Plan, open: &mut OpenRuns, number: u64, batch: &BatchWork) {
    if batch.partition.entered_offset() >= batch.base_offset {
        return;
    }
    open.close(batch.partition.key(), frame);
    enter_upto(frame, plan, &batch.partition, number, batch.before());
}

/// Enters everything of a partition up to a place.
fn enter_upto(frame: &mut FrameBuilder, plan: &Plan, partition: &Partition, number: u64, upto: Upto) {
    if partition.entered_offset() >= upto.next_offset {
        return;
    }
    for run in extent::runs(partition, number, upto, &plan.back) {
        frame.push(&run.entry());
    }
    *partition.entered.lock() = Some(upto);
}

/// Where a batch lies; the frame adds whose it is and its bytes.
fn place_of(batch: &BatchWork) -> InlineBatch {
    InlineBatch {
        topic_id: Bytes::new(),
        partition: batch.partition.key().partition,
        segment_base: batch.segment.base,
        generation: batch.segment.generation(),
        position: batch.position,
        batch: Bytes::new(),
    }
}

/// What an entry takes in a frame at most.
fn size_of(work: &Work) -> u64 {
    const SMALL: u64 = 256;
    match work {
        Work::Batch(batch) => SMALL + batch.bytes.len() as u64,
        Work::Entry(body) => SMALL + prost_len(body),
        Work::Sync { .. } | Work::Roll { .. } => SMALL,
    }
}

fn prost_len(body: &Body) -> u64 {
    body.encoded_len() as u64
}

/// Which partitions go as extents: those with much pending. Batches that must stand in the frame do not count.
fn choose(items: &[Item], plan: &mut Plan, inline_bytes: u64) {
    for work in items.iter().flat_map(|item| &item.work) {
        if let Work::Batch(batch) = work
            && !batch.inline
        {
            *plan.pending.entry(batch.partition.key()).or_default() += batch.bytes.len() as u64;
        }
    }
    let much = plan.pending.iter().filter(|(_, bytes)| **bytes > inline_bytes);
    plan.extents.extend(much.map(|(key, _)| *key));
}

/// The segments whose bytes this cycle's extents name.
fn to_flush(items: &[Item], plan: &mut Plan) -> Vec<(Arc<Partition>, Arc<Segment>)> {
    let mut out: Vec<(Arc<Partition>, Arc<Segment>)> = Vec::new();
    let mut add = |partition: &Arc<Partition>, segment: &Arc<Segment>| {
        if !out.iter().any(|(_, known)| Arc::ptr_eq(known, segment)) {
            out.push((Arc::clone(partition), Arc::clone(segment)));
        }
    };
    for work in items.iter().flat_map(|item| &item.work) {
        let Some(partition) = work.partition().filter(|partition| !plan.fenced.contains(&partition.key()))
        else {
            continue;
        };
        let reached = plan.reached.entry(partition.key()).or_insert_with(|| partition.entered_offset());
        match work {
            Work::Batch(batch) => {
                let extent = !batch.inline && plan.extents.contains(&partition.key());
                if extent && !planted(Mutant::ExtentBeforeFlush) {
                    add(partition, &batch.segment);
                }
                if *reached < batch.base_offset && !planted(Mutant::PastUnflushed) {
                    for segment in extent::segments(partition, batch.before()) {
                        add(partition, &segment);
                        plan.unread.push((Arc::clone(partition), segment));
                    }
                }
                *reached = batch.next_offset;
            }
            Work::Sync { upto, .. } if *reached < upto.next_offset => {
                if planted(Mutant::SyncPointUnflushed) {
                    continue;
                }
                for segment in extent::segments(partition, *upto) {
                    add(partition, &segment);
                    plan.unread.push((Arc::clone(partition), segment));
                }
                *reached = upto.next_offset;
            }
            Work::Sync { .. } | Work::Roll { .. } | Work::Entry(_) => {}
        }
    }
    out
}

/// What a file lost during the cycle is not acked, although the journal has it.
fn fail_lost(items: &[Item], plan: &mut Plan) {
    if !plan.touched.iter().any(|(key, partition)| partition.is_fenced() && !plan.fenced.contains(key)) {
        return;
    }
    for item in items {
        if item.work.iter().filter_map(Work::partition).any(|partition| partition.is_fenced()) {
            plan.failed.extend(item.first..=item.last());
        }
    }
}

/// A mistake of the model's: see [`Mutant::ExtentsToPresentEnd`].
fn move_sync_points(items: &mut [Item]) {
    for work in items.iter_mut().flat_map(|item| &mut item.work) {
        let Work::Sync { partition, .. } = work else { continue };
        let partition = Arc::clone(partition);
        let now = sync_point(&partition, &mut partition.lock());
        *work = now.expect("a partition with a sync point has a segment");
    }
}
