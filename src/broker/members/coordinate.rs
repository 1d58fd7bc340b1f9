//! Changes of hands: decided, entered, applied and told under one lock.

use std::collections::BTreeMap;

use annals_wire::{
    internal::{GroupConfigured, GroupMoved, OffsetsCommitted, state_entry::Body},
    limits::MAX_FILTER_BYTES,
};
use bytes::Bytes;
use prost::Message as _;

use super::{
    super::{Broker, Error, settle::room_for},
    beat::TICK_MS,
    desk::{Desk, End, News},
    member::Join,
    sessions::{Name, Overdue, Sessions},
};
use crate::{
    state::{
        GroupEvent, GroupSettings, GroupStart, Groups, Member, Membership, TopicView, Topics, decide,
        given_keys, keys, write_entry,
    },
    storage::{Change, Class, PartitionKey, Room},
    sync::Arc,
};

/// What an ownership takes in an entry at most, if a member and a topic have no other.
const OWNERSHIP_BYTES: u64 = 96;
/// For a member's own fields, and for partitions that are made between reserving and deciding.
const SPARE_BYTES: u64 = 256 * 1024;
/// So many assignment epochs are left at least, else nobody joins any more.
const LAST_EPOCHS: u32 = 1 << 20;

/// What a member that joined is told.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) number: u64,
    pub(super) generation: u32,
    pub(super) settings: Arc<GroupSettings>,
}

/// What became of a wish to join.
pub(super) enum Joining {
    Joined(Joined, Arc<Desk>),
    /// The name is this member's, who lives.
    InUse(Arc<str>),
}

impl Broker {
    /// Bytes that a change of hands takes in the journal, at most.
    fn move_bytes(&self) -> u64 {
        let partitions = self.truth.topics.lock().partitions();
        room_for(OWNERSHIP_BYTES * partitions + SPARE_BYTES + MAX_FILTER_BYTES as u64, 3)
    }

    /// Room for a change of hands.
    pub(super) async fn move_room(&self) -> Result<Room, Error> {
        self.room(self.move_bytes(), Class::Control).await
    }

    /// Whether a name may be taken now.
    pub(super) fn name_of_member(&self, join: &Join) -> Name {
        let groups = self.truth.groups.lock();
        let sessions = self.truth.sessions.lock();
        sessions.name(&groups, &join.group, &join.member_name, self.beat.now())
    }

    pub(super) fn decide_join(
        &self,
        room: Room,
        join: &Join,
        make_desk: impl FnOnce(Arc<str>, u64) -> Arc<Desk>,
    ) -> Result<Joining, Error> {
        let mut groups = self.truth.groups.lock();
        let mut sessions = self.truth.sessions.lock();
        let now = self.beat.now();
        let id = match sessions.name(&groups, &join.group, &join.member_name, now) {
            Name::InUse(id) => return Ok(Joining::InUse(id)),
            Name::Left(id) => id,
            Name::Free => {
                self.check_room_for_member(&groups, &join.group)?;
                Arc::from(format!("{:032x}", u128::from_be_bytes(crate::clock::uuid_v7(&*self.clock))))
            }
        };
        let name = if join.member_name.is_empty() { Arc::clone(&id) } else { Arc::from(&*join.member_name) };
        let member = Member { name, subscription: join.subscription.clone() };
        let desk = make_desk(Arc::clone(&id), now);
        let sets = first_settings(&groups, join)?;
        let mut turn = Turn { groups: &mut groups, sessions: &mut sessions, now, loses: false, sets };
        let event = GroupEvent::Join { id: &id, member };
        let number = self.turn(room, &mut turn, &join.group, &event, Some(&desk))?.unwrap_or(0);
        let group = groups.get(&join.group).expect("it has a member now");
        let joined = Joined { number, generation: group.membership.generation, settings: group.settings() };
        drop(sessions);
        drop(groups);
        self.keeper.member_came();
        Ok(Joining::Joined(joined, desk))
    }

    fn check_room_for_member(&self, groups: &Groups, group: &str) -> Result<(), Error> {
        let limits = &self.config.limits;
        let reached = |what, limit: u32| Err(Error::LimitReached { what, limit: limit.into() });
        let membership = groups.membership(group);
        if membership.members.len() as u64 >= u64::from(limits.max_group_members) {
            return reached("members of a group", limits.max_group_members);
        }
        if membership.next_epoch > u32::MAX - LAST_EPOCHS {
            return reached("assignment epochs of a group", u32::MAX - LAST_EPOCHS);
        }
        self.check_room_for_groups(groups, groups.get(group).is_none(), 0)
    }

    /// A member goes; the number of the entry that says so, 0 if it was gone already.
    pub(super) fn decide_leave(&self, room: Room, desk: &Arc<Desk>) -> Result<u64, Error> {
        let mut groups = self.truth.groups.lock();
        let mut sessions = self.truth.sessions.lock();
        if !sessions.is_current(desk) {
            return Ok(0);
        }
        let mut turn = Turn {
            groups: &mut groups,
            sessions: &mut sessions,
            now: self.beat.now(),
            loses: true,
            sets: None,
        };
        let event = GroupEvent::Gone { id: &desk.member };
        let number = self.turn(room, &mut turn, &desk.group, &event, None)?.unwrap_or(0);
        desk.end(End::Left(number));
        Ok(number)
    }

    /// A member hands over what it was asked for. What it has lost meanwhile is lost.
    pub(super) fn decide_released(
        &self,
        room: Room,
        desk: &Arc<Desk>,
        released: &[PartitionKey],
    ) -> Result<(), Error> {
        let mut groups = self.truth.groups.lock();
        let mut sessions = self.truth.sessions.lock();
        let membership = groups.membership(&desk.group);
        if !sessions.is_current(desk) {
            return Ok(());
        }
        let mut keys = Vec::with_capacity(released.len());
        for key in released {
            match membership.owned.get(key).filter(|owned| owned.member == desk.member) {
                Some(owned) if owned.revoking => keys.push(*key),
                Some(_) => {
                    let topic = self.catalog.name_of(key.topic).unwrap_or_default();
                    let why = format!("{topic}[{}] was not revoked", key.partition);
                    return Err(Error::argument("released.partitions", why));
                }
                None => {}
            }
        }
        let mut turn = Turn {
            groups: &mut groups,
            sessions: &mut sessions,
            now: self.beat.now(),
            loses: false,
            sets: None,
        };
        let event = GroupEvent::Released { keys: &keys };
        self.turn(room, &mut turn, &desk.group, &event, None).map(drop)
    }

    /// Looks after all groups once: moves the beat, ends silent members, takes what was not handed over in time, gives out
    /// what topics have got. False = there are no members.
    pub(crate) fn tend_groups(&self) -> bool {
        let now = self.beat.advance(&*self.clock);
        // Whoever says good-bye disturbs nobody: members come back to the next start.
        if self.draining() {
            return true;
        }
        let (due, all) = {
            let groups = self.truth.groups.lock();
            let mut sessions = self.truth.sessions.lock();
            (sessions.overdue(&groups, now), sessions.groups())
        };
        for (group, overdue) in due {
            // What is overdue stays so: if there is no room now, the next look tries again.
            self.tend(|room| self.decide_overdue(room, &group, &overdue, now));
        }
        self.expire_groups();
        if self.keeper.take_topics() {
            for group in &all {
                let done = self.tend(|room| self.decide_topics(room, group, now));
                if !done {
                    self.keeper.topics_changed();
                }
            }
        }
        !all.is_empty()
    }

    /// Runs a decision if there is room for it at once; else the next look does.
    fn tend(&self, decide: impl FnOnce(Room) -> Result<(), Error>) -> bool {
        let Ok(room) = self.storage.reserve(self.move_bytes(), Class::Control) else { return false };
        match decide(room) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "a group could not be looked after; it is tried again");
                false
            }
        }
    }

    fn decide_overdue(&self, room: Room, group: &Arc<str>, overdue: &Overdue, now: u64) -> Result<(), Error> {
        let mut groups = self.truth.groups.lock();
        let mut sessions = self.truth.sessions.lock();
        match overdue {
            Overdue::Silent(id) => {
                if !sessions.is_silent(group, id, now) {
                    return Ok(());
                }
                let out = silent(&sessions, group, id);
                // Its name comes back: it keeps what it has.
                if let Some(desk) = sessions.make_way(group, id, now) {
                    desk.end(End::Out(out));
                    return Ok(());
                }
                let desk = sessions.desk(group, id).cloned();
                let mut turn =
                    Turn { groups: &mut groups, sessions: &mut sessions, now, loses: true, sets: None };
                self.turn(room, &mut turn, group, &GroupEvent::Gone { id }, None)?;
                if let Some(desk) = desk {
                    desk.end(End::Out(out));
                }
            }
            Overdue::Kept(keys) => {
                let mut turn =
                    Turn { groups: &mut groups, sessions: &mut sessions, now, loses: true, sets: None };
                self.turn(room, &mut turn, group, &GroupEvent::Released { keys }, None)?;
            }
        }
        Ok(())
    }

    fn decide_topics(&self, room: Room, group: &Arc<str>, now: u64) -> Result<(), Error> {
        let mut groups = self.truth.groups.lock();
        let mut sessions = self.truth.sessions.lock();
        let mut turn = Turn { groups: &mut groups, sessions: &mut sessions, now, loses: true, sets: None };
        self.turn(room, &mut turn, group, &GroupEvent::Topics, None).map(drop)
    }

    /// What an event comes to: decided, entered, applied, told. `desk` is the new one of who joins. Returns the number of the
    /// entry; `None` = nothing followed.
    fn turn(
        &self,
        room: Room,
        turn: &mut Turn<'_>,
        group: &str,
        event: &GroupEvent<'_>,
        desk: Option<&Arc<Desk>>,
    ) -> Result<Option<u64>, Error> {
        let before = turn.groups.membership(group);
        let topics = self.truth.topics.lock();
        let views: Vec<_> = topics.iter().map(|topic| view(topic)).collect();
        let Some(moved) = decide(group, &before, &views, event) else { return Ok(None) };
        let sets = turn.sets.take().map(Body::GroupConfigured);
        let begins = self.begins(turn.groups, &before, &topics, &moved);
        if let Some(begins) = &begins {
            self.check_room_for_groups(turn.groups, false, begins.positions.len())?;
        }
        let begins = begins.map(Body::OffsetsCommitted);
        let bodies: Vec<Body> =
            sets.into_iter().chain(begins).chain([Body::GroupMoved(moved.clone())]).collect();
        let changes = bodies.iter().map(|body| Change::State(write_entry(body.clone()))).collect();
        let last = self.enqueue(room, changes)?;
        drop(topics);
        for (number, body) in (last + 1 - bodies.len() as u64..).zip(&bodies) {
            turn.groups.apply(number, body);
        }
        turn.tell(group, &before, &moved, last, desk);
        Ok(Some(last))
    }

    /// Where a group that begins at the end begins in partitions that are given out for the first time. It is written down:
    /// whatever happens before its first commit, nothing that comes from now on is left out.
    fn begins(
        &self,
        groups: &Groups,
        before: &Membership,
        topics: &Topics,
        moved: &GroupMoved,
    ) -> Option<OffsetsCommitted> {
        let group = groups.get(&moved.group)?;
        if group.settings().start != GroupStart::Latest {
            return None;
        }
        let mut positions = Vec::new();
        for (key, _) in moved.assigned.iter().flat_map(given_keys) {
            if group.positions.contains_key(&key) || before.owned.contains_key(&key) {
                continue;
            }
            let Some(topic) = topics.name(key.topic).and_then(|name| self.catalog.get(name)) else {
                continue;
            };
            let Ok(lane) = topic.lane(key.partition) else { continue };
            let bounds = lane.partition.bounds();
            // Made while somebody read it already: all of it is new.
            let read = before.members.values().any(|member| member.subscription.matches(topic.name()));
            let next_offset = if read { bounds.log_start } else { bounds.high_watermark };
            positions.push(super::super::commits::position_entry(key, next_offset, self.clock.wall_ms()));
        }
        (!positions.is_empty()).then(|| OffsetsCommitted { group: moved.group.clone(), positions })
    }
}

fn view(topic: &crate::state::Topic) -> TopicView<'_> {
    TopicView { name: &topic.name, id: topic.id, partitions: topic.settings.partitions }
}

/// What the first member of a new group brings along; a later one names the group's filter, or none.
fn first_settings(groups: &Groups, join: &Join) -> Result<Option<GroupConfigured>, Error> {
    let Some(filter) = &join.filter else { return Ok(None) };
    let filter = Bytes::from(filter.message().encode_to_vec());
    match groups.get(&join.group) {
        None => {
            let settings = GroupSettings { filter, ..GroupSettings::default() }.to_entry();
            Ok(Some(GroupConfigured { group: join.group.to_string(), settings: Some(settings) }))
        }
        Some(group) if group.settings().filter == filter => Ok(None),
        Some(_) => {
            let why =
                format!("group {:?} reads with another filter, or with none: name the same", join.group);
            Err(Error::argument("join.filter", why))
        }
    }
}

fn silent(sessions: &Sessions, group: &str, id: &str) -> Error {
    let timeout = sessions.timeout(group, id).unwrap_or(0);
    Error::MemberOut {
        group: group.to_owned(),
        member_id: id.to_owned(),
        why: format!("it was silent for {timeout} ms"),
    }
}

/// What a change of hands is made under.
struct Turn<'a> {
    groups: &'a mut Groups,
    sessions: &'a mut Sessions,
    now: u64,
    /// Who owned what is released did not hand it over: it is told.
    loses: bool,
    /// Settings that a new group gets.
    sets: Option<GroupConfigured>,
}

impl Turn<'_> {
    /// Puts an entry's news on the desks of those it concerns.
    fn tell(
        &mut self,
        group: &str,
        before: &Membership,
        moved: &GroupMoved,
        number: u64,
        joins: Option<&Arc<Desk>>,
    ) {
        for id in &moved.left {
            self.sessions.gone(group, id);
        }
        let settings = self.groups.get(group).map(|group| group.settings()).unwrap_or_default();
        let timeout = settings.session_timeout_ms.into();
        if let Some(former) = joins.and_then(|desk| self.sessions.join(desk, self.now, timeout)) {
            former.end(End::Out(Error::MemberOut {
                group: group.to_owned(),
                member_id: former.member.to_string(),
                why: "another process joined under its name".to_owned(),
            }));
        }
        let released: Vec<_> = moved.released.iter().flat_map(keys).collect();
        self.sessions.answered(group, released.iter().copied());
        if self.loses {
            self.tell_owners(group, before, released, number, None);
        }
        let until = self.now + u64::from(settings.revoke_timeout_ms) + TICK_MS;
        let asked: Vec<_> = moved.revoking.iter().flat_map(keys).collect();
        self.sessions.ask(group, asked.iter().copied(), until);
        self.tell_owners(group, before, asked, number, Some(until));
        for given in &moved.assigned {
            if let Some(desk) = self.sessions.desk(group, &given.member_id) {
                let keys = given_keys(given).collect();
                desk.tell(News::Assigned { number, generation: moved.generation, keys });
            }
        }
    }

    fn tell_owners(
        &self,
        group: &str,
        before: &Membership,
        keys: Vec<PartitionKey>,
        number: u64,
        until: Option<u64>,
    ) {
        let mut by_owner: BTreeMap<&Arc<str>, Vec<PartitionKey>> = BTreeMap::new();
        for key in keys {
            if let Some(owned) = before.owned.get(&key) {
                by_owner.entry(&owned.member).or_default().push(key);
            }
        }
        for (owner, keys) in by_owner {
            if let Some(desk) = self.sessions.desk(group, owner) {
                desk.tell(News::Revoked { number, keys, until });
            }
        }
    }
}
