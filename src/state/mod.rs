//! The truth that is not records: topics, committed offsets, request ids, producers.
//!
//! A pure machine: [`State::apply`] takes one entry after the other and knows no time, no disk and no chance. The
//! broker decides entries, the journal orders them, recovery replays them through the same `apply`; so what a
//! client was told and what a restart finds cannot differ.
//!
//! ```text
//!            +-- Topics     names, ids, settings
//!   entry -> +-- Groups     what each group has committed, by topic id; its settings, its members and what they own
//!            +-- Requests   what requests with an id were answered
//!            +-- Producers  ids, names and epochs of those who store with sequences
//! ```
//!
//! They never look at each other: each is right by itself after any entry. That is what lets the broker keep
//! each behind a lock of its own, and lets a snapshot take them one after the other while work goes on:
//!
//! 1. Each part keeps the number of the last entry it has seen and skips entries up to it. Its image is exact at
//!    that number, so images of different numbers and a replay of what came after lead to the same state as all
//!    entries in a row.
//! 2. Commits name topics by id. A topic made anew under an old name has another id: old commits do not apply, and
//!    the deletion of a topic takes its commits along.
//! 3. An entry of a kind that is not known is refused, unless it says it may be ignored.
//! 4. An image is cheap to take ([`Topics::freeze`] and its sisters clone pointers) and slow to write
//!    ([`Frozen::section`]), so that only the first happens under a lock.

mod groups;
mod producers;
mod requests;
mod topics;

#[cfg(test)]
mod tests;

use annals_wire::internal::{self, state_entry::Body, state_image::Part};
use prost::Message as _;

pub(crate) use groups::position_entry;
pub use groups::{
    Committed, Group, GroupEvent, GroupSettings, GroupStart, Groups, Member, Membership, Owned, Subscription,
    TopicView, decide, given_keys, keys,
};
pub use producers::{Producer, Producers};
pub use requests::{Done, RequestKey, Requests};
pub use topics::{Settings, Topic, Topics};

use crate::storage::{Machine, PartitionKey, Section};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Names, ids, settings.
    pub topics: Topics,
    /// What each group has committed, its settings and its members.
    pub groups: Groups,
    /// What requests with an id were answered.
    pub requests: Requests,
    /// Ids, names and epochs of those who store with sequences.
    pub producers: Producers,
}

impl State {
    /// One entry, in journal order.
    pub fn apply(&mut self, number: u64, body: &Body) -> Result<(), String> {
        self.topics.apply(number, body)?;
        self.groups.apply(number, body);
        self.requests.apply(number, body);
        self.producers.apply(number, body);
        Ok(())
    }

    fn restore_image(&mut self, number: u64, bytes: &[u8]) -> Result<(), String> {
        let image =
            internal::StateImage::decode(bytes).map_err(|error| format!("a state section: {error}"))?;
        match image.part {
            Some(Part::Topics(topics)) => self.topics = Topics::thaw(number, topics)?,
            Some(Part::Groups(groups)) => self.groups = Groups::thaw(number, groups)?,
            Some(Part::Requests(requests)) => self.requests = Requests::thaw(number, requests),
            Some(Part::Producers(producers)) => self.producers = Producers::thaw(number, producers),
            None if image.may_ignore => {}
            None => return Err("a part of the state that this version does not know".into()),
        }
        Ok(())
    }

    /// Tests call it after each step.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.topics.check();
        self.groups.check();
        self.requests.check();
        self.producers.check();
    }
}

impl Machine for State {
    fn restore(&mut self, section: &Section) -> Result<(), String> {
        self.restore_image(section.number, &section.bytes)
    }

    fn apply(&mut self, number: u64, entry: &[u8]) -> Result<(), String> {
        match read_entry(entry)? {
            Some(body) => Self::apply(self, number, &body),
            None => Ok(()),
        }
    }

    fn lower_commits(&mut self, ends: &dyn Fn(PartitionKey) -> Option<i64>) -> Vec<Vec<u8>> {
        self.groups.lower(ends).into_iter().map(|entry| write_entry(Body::OffsetsCommitted(entry))).collect()
    }

    fn capture(&self, number: u64) -> Vec<Section> {
        let parts = [self.topics.freeze(), self.groups.freeze(), self.requests.freeze()];
        parts
            .into_iter()
            .chain(self.producers.freeze())
            .map(|part| Section { number, ..part.section() })
            .collect()
    }
}

/// An entry as the journal keeps it.
pub fn write_entry(body: Body) -> Vec<u8> {
    internal::StateEntry { may_ignore: false, body: Some(body) }.encode_to_vec()
}

/// What an entry says; `None` if it may be ignored.
fn read_entry(bytes: &[u8]) -> Result<Option<Body>, String> {
    let entry = internal::StateEntry::decode(bytes).map_err(|error| format!("a state entry: {error}"))?;
    if entry.body.is_none() && !entry.may_ignore {
        return Err("a state entry of a kind that this version does not know".into());
    }
    Ok(entry.body)
}

/// The positions that entries of [`Machine::lower_commits`] set: group, partition, next offset.
pub fn lowered(entries: &[Vec<u8>]) -> Vec<(String, PartitionKey, i64)> {
    let mut all = Vec::new();
    for entry in entries {
        let Ok(Some(Body::OffsetsCommitted(commit))) = read_entry(entry) else { continue };
        all.extend(commit.positions.iter().filter_map(|position| {
            let topic = annals_wire::ids::TopicId::from_slice(&position.topic_id)?;
            let key = PartitionKey { topic, partition: position.partition };
            Some((commit.group.clone(), key, position.next_offset))
        }));
    }
    all
}

/// A part of the state as it was at a number; writing it down can wait until the lock is free.
#[derive(Debug)]
pub struct Frozen {
    number: u64,
    part: FrozenPart,
}

#[derive(Debug)]
enum FrozenPart {
    Topics(topics::FrozenTopics),
    Groups(groups::FrozenGroups),
    Requests(requests::FrozenRequests),
    Producers(producers::FrozenProducers),
}

impl Frozen {
    /// Writes it down.
    pub fn section(self) -> Section {
        let part = match self.part {
            FrozenPart::Topics(topics) => Part::Topics(topics::image(&topics)),
            FrozenPart::Groups(groups) => Part::Groups(groups::image(&groups)),
            FrozenPart::Requests(requests) => Part::Requests(requests::image(&requests)),
            FrozenPart::Producers(producers) => Part::Producers(producers::image(&producers)),
        };
        let image = internal::StateImage { may_ignore: false, part: Some(part) };
        Section { number: self.number, bytes: image.encode_to_vec() }
    }
}
