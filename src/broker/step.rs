//! A read-process-write step: outputs for any number of partitions, and how far a group's input is processed.
//!
//! ```text
//!   fields checked -> (id seen before? the first answer) -> may the group commit? -> topics, made if need be
//!     -> records walked, sorted by partition -> segments prepared, room reserved
//!     -> locks: requests, groups, partitions -> id, commit and log ends judged -> one frame:
//!          batch, batch, ...   OffsetsCommitted   RequestDone
//!     -> ack when that frame is on disk
//! ```
//!
//! 1. **All of it or nothing**, whatever crashes: every entry stands in one frame, and the batches carry the mark of an
//!    atomic group, so that a walk behind the journal's end takes none of them for a whole.
//! 2. **The id comes before everything else.** A step that was done is answered as it was the first time, also if its
//!    group has gone on since and the step would be refused today. Whatever is about to be refused is therefore looked up
//!    once more: it may just have been done by a twin.
//! 3. **Who is refused has changed nothing**, but for a topic that may have been made for it.

use annals_wire::{
    internal::{request_done, state_entry::Body},
    request::ScannedOutput,
};

use super::{
    Broker, Commit, Error, PartitionAppend, Principal, Produced, RETRY_SOON,
    commits::{self, Judged},
    gather::Request,
    once::Once,
    outputs::{self, Outputs},
    produce::{BATCH_DONE_BYTES, MOST_ROUNDS, Refused, Tried, Wanted, answers_again},
    settle::room_for,
};
use crate::{
    state::{Done, write_entry},
    storage::{Class, Level, Mode, Room},
};

/// A step to be done at most once.
#[derive(Debug)]
pub struct Step {
    /// Names it; the same id again is the same step. 1..=128 bytes.
    pub request_id: String,
    /// How far the input is processed, if there was any.
    pub commit: Option<Commit>,
    /// Records to store, if there are any.
    pub outputs: Vec<ScannedOutput>,
    /// Who asks; request ids are kept per principal.
    pub principal: Principal,
}

/// A step whose fields make sense.
struct Checked {
    once: Once,
    commit: Option<Commit>,
    outputs: Vec<Request>,
}

/// What became of a try.
enum Outcome {
    /// Entered; the ack waits for this number.
    Done(Produced, u64),
    /// A step of this id was done before.
    Before(Done),
    /// To be tried again: a topic is gone, or somebody else took the room.
    Again,
}

impl Broker {
    /// Does a step; it is on disk when this returns. [`Produced::appends`] has one for each output and partition touched, in
    /// the order of the outputs and within one in order of partition.
    ///
    /// # Errors
    /// Those of [`Broker::produce`] and [`Broker::commit_offsets`]; `InvalidArgument`, `RequestIdReused`. Nothing is stored
    /// and nothing committed then, unless it is `OutcomeUnknown`.
    pub async fn append_and_commit(&self, step: Step) -> Result<Produced, Error> {
        let _storing = self.enter_storing()?;
        let step = self.check_step(step)?;
        if let Some(done) = self.seen(&step.once).await? {
            return self.step_again(&step, &done).await;
        }
        for _ in 0..MOST_ROUNDS {
            match self.try_step(&step).await {
                Ok(Outcome::Done(produced, number)) => {
                    self.written(number).await?;
                    return Ok(produced);
                }
                Ok(Outcome::Before(done)) => return self.step_again(&step, &done).await,
                Ok(Outcome::Again) => {}
                Err(error) => {
                    return match self.seen(&step.once).await? {
                        Some(done) => self.step_again(&step, &done).await,
                        None => self.refuse(error).await,
                    };
                }
            }
        }
        Err(Error::Throttled { retry_delay: RETRY_SOON })
    }

    fn check_step(&self, step: Step) -> Result<Checked, Error> {
        let Step { request_id, commit, outputs, principal } = step;
        if let Some(commit) = &commit {
            self.check_commit(commit)?;
            let unguarded = commit.positions.iter().position(|position| position.expected_offset.is_none());
            // A member's positions are guarded by its assignments.
            if let Some(index) = unguarded.filter(|_| commit.member_id.is_empty()) {
                let why = "is needed: it is what keeps two processes of a group from doing the same step under two ids";
                return Err(Error::argument(format!("offsets[{index}].expected_offset"), why));
            }
        } else if outputs.is_empty() {
            return Err(Error::argument("outputs", "a step needs outputs, offsets, or both"));
        }
        let digest = digest_fields(commit.as_ref(), &outputs);
        let once = Once::new(&principal, &request_id, &[b"append-and-commit", digest.as_bytes()])?;
        let once =
            once.ok_or_else(|| Error::argument("request_id", "is needed: without it no retry is safe"))?;
        Ok(Checked { once, commit, outputs: outputs::requests(outputs, &self.config.limits)? })
    }

    /// From the topics to the entry.
    async fn try_step(&self, step: &Checked) -> Result<Outcome, Error> {
        let outputs = self.step_outputs(step).await?;
        for _ in 0..MOST_ROUNDS {
            let prepared = self.prepare(outputs.sizes()).await;
            let tried = match prepared {
                Ok(()) => {
                    let room = self.step_room(step, &outputs).await?;
                    self.enter_step(room, step, &outputs)
                }
                Err(error) => Err(Refused::Append(error)),
            };
            match tried {
                Ok(outcome) => return Ok(outcome),
                Err(Refused::Error(error)) => return Err(error),
                Err(Refused::Append(error)) => {
                    let place = |batch| outputs.place(batch);
                    match self.appended_not(&error, place, &Wanted::default())? {
                        Tried::Prepare => {}
                        Tried::TopicGone => return Ok(Outcome::Again),
                    }
                }
            }
        }
        Err(Error::Throttled { retry_delay: RETRY_SOON })
    }

    /// The outputs by partition. Topics that are not there are made, if everything else about the step is right.
    async fn step_outputs(&self, step: &Checked) -> Result<Outputs, Error> {
        let limits = &self.config.limits;
        let mut outputs = Outputs::default();
        for (index, request) in step.outputs.iter().enumerate() {
            let topic = if let Some(topic) = self.catalog.get(&request.topic) {
                topic
            } else {
                self.judge_step(step)?;
                self.topic_for(request).await.map_err(|error| outputs::of_output(error, index))?
            };
            outputs.add(request, &topic, limits).map_err(|error| outputs::of_output(error, index))?;
        }
        Ok(outputs)
    }

    /// Whether the step's commit may be, as things stand.
    fn judge_step(&self, step: &Checked) -> Result<(), Error> {
        let Some(commit) = &step.commit else { return Ok(()) };
        let groups = self.truth.groups.lock();
        if !step.outputs.is_empty() {
            Self::check_outputs(&groups, &commit.group)?;
        }
        self.judge_commit(&groups, commit.clone()).map(drop)
    }

    async fn step_room(&self, step: &Checked, outputs: &Outputs) -> Result<Room, Error> {
        let batches: u64 = outputs.sizes().map(|(_, bytes)| bytes).sum();
        let commit = step.commit.as_ref().map_or(0, commits::entry_bytes);
        let done = step.once.entry_len() + BATCH_DONE_BYTES * (outputs.shares() + step.outputs.len()) as u64;
        let bytes = room_for(batches + commit + done, outputs.batches.len() + 2);
        let class = if outputs.batches.is_empty() { Class::Control } else { Class::Data };
        self.room(bytes, class).await
    }

    fn enter_step(&self, room: Room, step: &Checked, outputs: &Outputs) -> Result<Outcome, Refused> {
        let mut requests = self.truth.requests.lock();
        if let Some(done) = step.once.seen(&requests).map_err(Refused::Error)? {
            return Ok(Outcome::Before(done));
        }
        let mut groups = self.truth.groups.lock();
        if let Some(commit) = step.commit.as_ref().filter(|_| !step.outputs.is_empty()) {
            Self::check_outputs(&groups, &commit.group).map_err(Refused::Error)?;
        }
        let judged = step.commit.clone().map(|commit| self.judge_commit(&groups, commit)).transpose();
        let commit = match judged.map_err(Refused::Error)? {
            Some(Judged::News(entry)) => Some(Body::OffsetsCommitted(entry)),
            // It stands there already. What says so is older than this step's own entry, which is waited for.
            Some(Judged::Before(_)) | None => None,
        };
        let mode = Mode { level: Level::Fsync, atomic: true };
        let mut done = None;
        let receipt = self.storage.append(room, &outputs.appends(), mode, &mut |appended| {
            let result = request_done::Result::Step(outputs.done(appended));
            let done = done.insert(step.once.entry(self.clock.wall_ms(), result));
            commit.iter().chain([&*done]).map(|body| write_entry(body.clone())).collect()
        })?;
        let numbers = receipt.first_entry..;
        // A number beyond the newest is none: the journal closed, and the ack will say so.
        for (number, body) in numbers.zip(commit.iter().chain(&done)) {
            if number <= self.storage.last_number() {
                self.apply_commit(&mut groups, number, body);
                requests.apply(number, body);
            }
        }
        let produced = Produced { appends: outputs.answers(&receipt.appended), duplicate: false };
        Ok(Outcome::Done(produced, receipt.ack))
    }

    /// The answer of a step that was done before.
    async fn step_again(&self, step: &Checked, done: &Done) -> Result<Produced, Error> {
        let Some(request_done::Result::Step(result)) = &done.done.result else {
            return Err(Error::argument("request_id", "belongs to another kind of request"));
        };
        let mut appends = smallvec::SmallVec::<[PartitionAppend; 1]>::new();
        for (request, output) in step.outputs.iter().zip(&result.outputs) {
            appends.extend(answers_again(request, output)?);
        }
        self.read_durable(done.number).await?;
        Ok(Produced { appends, duplicate: true })
    }
}

/// What tells this step from another under the same id.
fn digest_fields(commit: Option<&Commit>, outputs: &[ScannedOutput]) -> String {
    use std::fmt::Write as _;
    let mut fields = String::new();
    let mut put = |args: std::fmt::Arguments<'_>| {
        fields.write_fmt(args).expect("a string takes everything");
    };
    if let Some(commit) = commit {
        put(format_args!("group {:?}\n", commit.group));
        if !commit.member_id.is_empty() {
            put(format_args!("member {:?}\n", commit.member_id));
        }
        for position in &commit.positions {
            put(format_args!("{:?} {} {} ", position.topic, position.partition, position.next_offset));
            put(format_args!("{:?} {:?} ", position.expected_offset, position.leader_epoch));
            let topic_id = position.topic_id.map(|id| id.to_string());
            put(format_args!("{topic_id:?} {:?}", position.metadata));
            if position.assignment_epoch > 0 {
                put(format_args!(" {}", position.assignment_epoch));
            }
            put(format_args!("\n"));
        }
    }
    for output in outputs {
        let (len, crc32) = (output.records.byte_len(), output.records.crc32());
        put(format_args!("{:?} {:?} {len} {crc32}\n", output.topic, output.partition));
    }
    fields
}
