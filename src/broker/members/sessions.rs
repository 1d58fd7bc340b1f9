//! Who is heard, and who was asked for what: a pure value, `(state, event, now) -> what is due`.
//!
//! Every member of the state has a session here, with a desk while its stream lasts. A member whose stream ended stays
//! until its timeout: its name may come back. After a restart all of them start with a full timeout, without a desk.

use std::collections::BTreeMap;

use super::{beat::TICK_MS, desk::Desk};
use crate::{state::Groups, storage::PartitionKey, sync::Arc};

/// A member's session.
#[derive(Debug)]
struct Session {
    /// When it was heard last, unless its desk knows better.
    heard: u64,
    desk: Option<Arc<Desk>>,
    /// Silence after which it is out, as it was told when it joined.
    timeout: u64,
    /// Who waits for its name; more than one is possible, and one of them gets it.
    waiting: usize,
}

/// Sessions of a group.
#[derive(Debug, Default)]
struct Live {
    members: BTreeMap<Arc<str>, Session>,
    /// Partitions that their owner was asked for, and until when it has time.
    asked: BTreeMap<PartitionKey, u64>,
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    groups: BTreeMap<Arc<str>, Live>,
}

/// What time has made of a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// This member was silent for too long.
    Silent(Arc<str>),
    /// These partitions were not handed over in time.
    Kept(Vec<PartitionKey>),
}

/// Whether a name may be taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Nobody has it.
    Free,
    /// Whose it is has no stream any more, or was silent for too long.
    Left(Arc<str>),
    /// Whose it is lives.
    InUse(Arc<str>),
}

impl Session {
    fn heard(&self) -> u64 {
        self.desk.as_ref().map_or(self.heard, |desk| desk.heard().max(self.heard))
    }

    fn is_silent(&self, now: u64) -> bool {
        // The beat is as coarse as the keeper's look: it is given that much more.
        now.saturating_sub(self.heard()) >= self.timeout + TICK_MS
    }
}

impl Sessions {
    /// What a start finds: everybody has a full timeout to come back.
    pub(crate) fn restored(groups: &Groups, now: u64) -> Self {
        let mut sessions = Self::default();
        for (name, group) in groups.page("", "") {
            if group.membership.members.is_empty() {
                continue;
            }
            let live = sessions.groups.entry(Arc::clone(name)).or_default();
            let timeout = group.settings().session_timeout_ms.into();
            for member in group.membership.members.keys() {
                live.members
                    .insert(Arc::clone(member), Session { heard: now, desk: None, timeout, waiting: 0 });
            }
            let until = now + u64::from(group.settings().revoke_timeout_ms);
            let asked = group.membership.owned.iter().filter(|(_, owned)| owned.revoking);
            live.asked.extend(asked.map(|(key, _)| (*key, until)));
        }
        sessions
    }

    /// Groups with members.
    pub(crate) fn groups(&self) -> Vec<Arc<str>> {
        self.groups.keys().cloned().collect()
    }

    /// Silence after which a member is out, if there is such a member.
    pub(crate) fn timeout(&self, group: &str, member: &str) -> Option<u64> {
        Some(self.groups.get(group)?.members.get(member)?.timeout)
    }

    /// Whether a member of this name may come now.
    pub(crate) fn name(&self, groups: &Groups, group: &str, name: &str, now: u64) -> Name {
        let Some(state) = groups.get(group) else { return Name::Free };
        let Some(id) = state.membership.named(name) else { return Name::Free };
        let session = self.groups.get(group).and_then(|live| live.members.get(id));
        match session {
            Some(session) if session.desk.is_some() && !session.is_silent(now) => Name::InUse(Arc::clone(id)),
            _ => Name::Left(Arc::clone(id)),
        }
    }

    /// Somebody waits, or no longer waits, for the name of a member.
    pub(crate) fn wait(&mut self, group: &str, member: &str, begins: bool) {
        if let Some(session) = self.groups.get_mut(group).and_then(|live| live.members.get_mut(member)) {
            session.waiting = if begins { session.waiting + 1 } else { session.waiting.saturating_sub(1) };
        }
    }

    /// A member came, or came back. Returns its former desk.
    pub(crate) fn join(&mut self, desk: &Arc<Desk>, now: u64, timeout: u64) -> Option<Arc<Desk>> {
        let live = self.groups.entry(Arc::clone(&desk.group)).or_default();
        let before = live.members.remove(&desk.member);
        let waiting = before.as_ref().map_or(0, |before| before.waiting);
        let session = Session { heard: now, desk: Some(Arc::clone(desk)), timeout, waiting };
        live.members.insert(Arc::clone(&desk.member), session);
        before?.desk
    }

    /// A member is gone. Returns its desk.
    pub(crate) fn gone(&mut self, group: &str, member: &str) -> Option<Arc<Desk>> {
        let live = self.groups.get_mut(group)?;
        let session = live.members.remove(member);
        if live.members.is_empty() {
            self.groups.remove(group);
        }
        session?.desk
    }

    /// A stream ended; its member stays.
    pub(crate) fn hang_up(&mut self, desk: &Arc<Desk>) {
        let live = self.groups.get_mut(&*desk.group);
        let Some(session) = live.and_then(|live| live.members.get_mut(&*desk.member)) else { return };
        if session.desk.as_ref().is_some_and(|own| Arc::ptr_eq(own, desk)) {
            session.heard = session.heard();
            session.desk = None;
        }
    }

    /// A silent member that somebody waits for: takes its desk away, so that its name is free.
    pub(crate) fn make_way(&mut self, group: &str, member: &str, now: u64) -> Option<Arc<Desk>> {
        let session = self.groups.get_mut(group)?.members.get_mut(member)?;
        if session.waiting == 0 {
            return None;
        }
        session.heard = now;
        session.desk.take()
    }

    /// Whether this desk is still its member's.
    pub(crate) fn is_current(&self, desk: &Arc<Desk>) -> bool {
        let own = self.desk(&desk.group, &desk.member);
        own.is_some_and(|own| Arc::ptr_eq(own, desk))
    }

    /// Where to tell a member something.
    pub(crate) fn desk(&self, group: &str, member: &str) -> Option<&Arc<Desk>> {
        self.groups.get(group)?.members.get(member)?.desk.as_ref()
    }

    /// An owner was asked for partitions.
    pub(crate) fn ask(&mut self, group: &str, keys: impl IntoIterator<Item = PartitionKey>, until: u64) {
        if let Some(live) = self.groups.get_mut(group) {
            live.asked.extend(keys.into_iter().map(|key| (key, until)));
        }
    }

    /// Partitions are no longer asked for.
    pub(crate) fn answered(&mut self, group: &str, keys: impl IntoIterator<Item = PartitionKey>) {
        if let Some(live) = self.groups.get_mut(group) {
            for key in keys {
                live.asked.remove(&key);
            }
        }
    }

    /// What is due, group by group.
    pub(crate) fn overdue(&mut self, groups: &Groups, now: u64) -> Vec<(Arc<str>, Overdue)> {
        let mut due = Vec::new();
        for (name, live) in &mut self.groups {
            let Some(group) = groups.get(name) else { continue };
            let silent = live.members.iter().filter(|(_, session)| session.is_silent(now));
            due.extend(silent.map(|(id, _)| (Arc::clone(name), Overdue::Silent(Arc::clone(id)))));
            // What was asked for may be gone with its owner or its topic.
            live.asked.retain(|key, _| group.membership.owned.get(key).is_some_and(|owned| owned.revoking));
            let kept: Vec<_> =
                live.asked.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key).collect();
            if !kept.is_empty() {
                due.push((Arc::clone(name), Overdue::Kept(kept)));
            }
        }
        due
    }

    /// Whether it is still true that a member was silent for too long.
    pub(crate) fn is_silent(&self, group: &str, member: &str, now: u64) -> bool {
        let session = self.groups.get(group).and_then(|live| live.members.get(member));
        session.is_some_and(|session| session.is_silent(now))
    }

    /// Every member has a session and every session a member.
    #[cfg(test)]
    pub(crate) fn check(&self, groups: &Groups) {
        for (name, live) in &self.groups {
            let members = groups.membership(name).members;
            assert!(live.members.keys().eq(members.keys()), "{name}: {:?} and {members:?}", live.members);
        }
        for (name, group) in groups.page("", "") {
            assert!(group.membership.members.is_empty() || self.groups.contains_key(name), "{name}");
        }
    }
}
