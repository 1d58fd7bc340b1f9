//! Entries of the state: which were found, and whether the state is theirs (R5, R13).

use std::collections::BTreeSet;

use annals_wire::internal::state_entry::Body;

use super::{Item, Oracle, check};
use crate::{
    state::{Group, RequestKey, State},
    storage::{Machine as _, Storage},
    sync::Arc,
};

/// Whose request ids the model's are.
pub(in crate::model) const PRINCIPAL: &str = "model";

fn is_there(state: &State, id: u64) -> bool {
    let key = RequestKey { principal: Arc::from(PRINCIPAL), id: Arc::from(id.to_string()) };
    state.requests.get(&key).is_some()
}

impl Oracle {
    /// Which items with entries were found: all acked ones, none that was given up, no hole. Their entries become the state.
    pub(super) fn find_entries(&mut self, items: &[Item], state: &State) -> Result<BTreeSet<u64>, String> {
        let mut found = BTreeSet::new();
        let mut missing = None;
        for item in items {
            let Some(id) = item.id else { continue };
            if !is_there(state, id) {
                check(!item.acked, || format!("R5: acked request {id} is gone"))?;
                if !item.given_up {
                    missing.get_or_insert(id);
                }
                continue;
            }
            if let Some(missing) = missing {
                return Err(format!("R5: request {id} is there and {missing} before it is not"));
            }
            found.insert(id);
            for (number, body) in &item.entries {
                self.state.apply(*number, body).map_err(|why| format!("R5: request {id}: {why}"))?;
                if let Body::TopicDeleted(deleted) = body {
                    self.logs.retain(|key, _| key.topic.as_bytes()[..] != deleted.topic_id[..]);
                }
            }
        }
        Ok(found)
    }

    /// Partitions that are not there, because the entry that makes them is not, must not have acked anything.
    pub(super) fn drop_logs(&mut self) -> Result<(), String> {
        let topics = &self.state.topics;
        let mut wrong = None;
        self.logs.retain(|key, log| {
            let partitions =
                topics.name(key.topic).and_then(|name| topics.get(name)).map(|t| t.settings.partitions);
            let there = partitions.is_some_and(|partitions| key.partition < partitions);
            if !there && log.acked > 0 {
                wrong = Some(format!("R1: {key} acked {} batches and was never made", log.acked));
            }
            there
        });
        wrong.map_or(Ok(()), Err)
    }

    pub(super) fn judge_groups(&self, items: &[Item], found: &BTreeSet<u64>) -> Result<(), String> {
        for item in items.iter().filter(|item| item.atomic) {
            let there = item
                .parts
                .iter()
                .filter_map(|part| self.logs.get(&part.key).map(|log| part.index < log.batches.len()));
            let there: Vec<bool> = there.collect();
            let whole = item.id.map_or(there.first() == Some(&true), |id| found.contains(&id));
            check(there.iter().all(|part| *part == whole), || {
                format!("R13: of {:?} there is {there:?}, its entries: {whole}", item.parts)
            })?;
        }
        Ok(())
    }

    /// The recovered state is that of the entries found, commits beyond the logs' ends lowered.
    pub(super) fn compare_state(&mut self, state: &State) -> Result<(), String> {
        let logs = &self.logs;
        let _said_by_recovery_too = self.state.lower_commits(&|key| logs.get(&key).map(super::Log::end));
        same_state(&self.state, state)
    }

    /// Storage holds the partitions that the state says.
    pub(super) fn compare_topics(&self, storage: &Storage) -> Result<(), String> {
        for topic in self.state.topics.iter() {
            let partitions = storage.partitions(&topic.id).len();
            check(u32::try_from(partitions) == Ok(topic.settings.partitions), || {
                format!(
                    "R5: topic {} has {partitions} partitions, not {}",
                    topic.name, topic.settings.partitions
                )
            })?;
        }
        Ok(())
    }
}

/// Whether two states say the same. Numbers of entries may differ: a lowered commit is an entry only in one of them.
pub(in crate::model) fn same_state(wanted: &State, found: &State) -> Result<(), String> {
    let topics =
        |state: &State| state.topics.iter().map(|t| (t.id, t.settings, t.created_ms)).collect::<Vec<_>>();
    check(topics(wanted) == topics(found), || {
        format!("R5: topics {:?}, not {:?}", topics(found), topics(wanted))
    })?;
    check(wanted.groups.names().eq(found.groups.names()), || "R5: other groups".into())?;
    for name in wanted.groups.names() {
        let positions = |state: &State| state.groups.get(name).map(|group: &Arc<Group>| Arc::clone(group));
        let (wanted, found) = (positions(wanted), positions(found));
        let same =
            wanted.as_ref().map(|group| &group.positions) == found.as_ref().map(|group| &group.positions);
        check(same, || format!("R5: group {name}: {found:?}, not {wanted:?}"))?;
    }
    check(wanted.requests.iter().eq(found.requests.iter()), || {
        let requests = |state: &State| {
            state.requests.iter().map(|(number, done)| format!("{number}: {done:?}")).collect::<Vec<_>>()
        };
        format!("R5: requests were answered {:?}, not {:?}", requests(found), requests(wanted))
    })
}
