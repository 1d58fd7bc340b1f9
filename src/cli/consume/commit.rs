//! What a group has seen: committed after it was printed and flushed, never before.

use std::collections::BTreeMap;

use annals_client::{Client, reason, v1};

use crate::cli::{
    exit::{Exit, Failure},
    plan::Planned,
};

/// Commits for one group in one topic.
///
/// Two processes that read under one group's name would each skip what the other commits, so every commit says where it
/// believes the group to stand; who is wrong about it stops.
#[derive(Debug)]
pub(super) struct Committer {
    client: Client,
    group: String,
    topic: String,
    /// Where the group stands, as far as this process knows.
    stands: BTreeMap<u32, i64>,
    /// Printed, not committed.
    pending: BTreeMap<u32, v1::CommitPosition>,
    /// The answer to a commit got lost: ask where the group stands before the next.
    in_doubt: bool,
}

impl Committer {
    pub(super) fn new(client: &Client, group: &str, topic: &str, planned: &[Planned]) -> Self {
        let stands = planned.iter().map(|at| (at.partition, at.committed.unwrap_or(at.from))).collect();
        Self {
            client: client.clone(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            stands,
            pending: BTreeMap::new(),
            in_doubt: false,
        }
    }

    /// Everything before `position.next_offset` is printed; it may be committed once it is flushed.
    pub(super) fn printed(&mut self, position: v1::CommitPosition) {
        let stands = self.stands.entry(position.partition).or_insert(0);
        if position.next_offset > *stands {
            self.pending.insert(position.partition, position);
        }
    }

    /// There is something to commit.
    pub(super) fn is_due(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Commits what is printed. `Ok(false)`: the server could not be asked, and it is to be tried again.
    pub(super) async fn commit(&mut self) -> Result<bool, Failure> {
        if self.pending.is_empty() {
            return Ok(true);
        }
        match self.try_commit().await {
            Ok(()) => Ok(true),
            Err(error) if error.reason() == reason::EXPECTED_OFFSET_MISMATCH => {
                let what = format!(
                    "group \"{}\" was moved by somebody else: {}",
                    self.group,
                    error.message().trim_end_matches('.')
                );
                Err(Failure::new(Exit::Conflict, what).next("Give each reader a group of its own"))
            }
            Err(error) if error.is_temporary() => {
                self.in_doubt |= !error.is_refusal();
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn try_commit(&mut self) -> annals_client::Result<()> {
        if self.in_doubt {
            for at in self.client.offsets(&self.group, &[&self.topic]).await? {
                if self
                    .pending
                    .get(&at.partition)
                    .is_some_and(|pending| pending.next_offset >= at.next_offset)
                {
                    self.stands.insert(at.partition, at.next_offset);
                }
            }
            self.in_doubt = false;
            let stands = &self.stands;
            self.pending.retain(|partition, pending| stands.get(partition) != Some(&pending.next_offset));
        }
        let positions: Vec<v1::CommitPosition> = self
            .pending
            .values()
            .map(|position| v1::CommitPosition {
                expected_offset: self.stands.get(&position.partition).copied(),
                ..position.clone()
            })
            .collect();
        // A commit takes so many positions at most; a topic has no more partitions.
        self.client.commit(&self.group, positions).await?;
        for (partition, position) in std::mem::take(&mut self.pending) {
            self.stands.insert(partition, position.next_offset);
        }
        Ok(())
    }
}
