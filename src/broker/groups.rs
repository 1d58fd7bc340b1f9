//! Groups: make, look at, change, delete. A group is also made by its first commit or its first member; it is gone with the
//! last of its positions, members and settings.

use std::collections::{BTreeMap, BTreeSet};

use annals_wire::{
    internal::{self, state_entry::Body},
    limits::{
        MAX_GROUP_HEARTBEAT_MS, MAX_REVOKE_TIMEOUT_MS, MAX_SESSION_TIMEOUT_MS, MIN_GROUP_HEARTBEAT_MS,
        MIN_REVOKE_TIMEOUT_MS, MIN_SESSION_TIMEOUT_MS,
    },
    names::check_group_name,
};

use prost::Message as _;

use super::{
    Broker, Error, Filter, Page, PageRequest, Place, members::Sessions, nearest::nearest, page::Filling,
    settle::room_for,
};
use crate::{
    state::{Group, GroupSettings, GroupStart, Groups, Topics, write_entry},
    storage::{Change, Class, Room},
    sync::Arc,
};

/// Bytes of an entry that sets a group up, beside its name and its filter.
pub(super) const SETTINGS_BYTES: u64 = 256;

/// A group as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Name.
    pub name: Arc<str>,
    /// Names of the topics it has committed in, in order.
    pub topics: Vec<Arc<str>>,
    /// Partitions it has committed in.
    pub committed_partitions: u32,
    /// When it last committed.
    pub last_commit_ms: i64,
    /// Settings in force.
    pub settings: Arc<GroupSettings>,
    /// Rises with each change of hands.
    pub generation: u32,
    /// How many members there are.
    pub member_count: u32,
    /// Its members, if they were asked for, in order of id.
    pub members: Vec<MemberInfo>,
}

/// A member as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Given by the broker.
    pub id: Arc<str>,
    /// Chosen by the member; its id if it chose none.
    pub name: Arc<str>,
    /// Where it calls from; empty while it has no stream.
    pub peer: Arc<str>,
    /// What it owns, in order of topic and partition.
    pub partitions: Vec<OwnedPartition>,
}

/// A partition that a member owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPartition {
    /// Which.
    pub place: Place,
    /// Under which it is owned.
    pub assignment_epoch: u32,
    /// Its owner was asked to hand it over.
    pub revoking: bool,
}

/// Settings of a group asked for; `None` = the default when it is made, unchanged when it is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// Where it begins.
    pub start: Option<GroupStart>,
    /// How often members speak at least, milliseconds.
    pub heartbeat_interval_ms: Option<u32>,
    /// Silence after which a member is out, milliseconds.
    pub session_timeout_ms: Option<u32>,
    /// Time a member gets to hand a partition over, milliseconds.
    pub revoke_timeout_ms: Option<u32>,
    /// A partition whose position is no longer kept stops.
    pub stop_at_gap: Option<bool>,
    /// What members are not sent. Only when it is made.
    pub filter: Option<Arc<Filter>>,
}

impl Broker {
    /// Makes a group. One that is there with the settings asked for is fine.
    ///
    /// # Errors
    /// `GroupExists`, `InvalidName`, `InvalidArgument`, `LimitReached`.
    pub async fn create_group(&self, name: &str, asked: GroupChange) -> Result<GroupInfo, Error> {
        check_name(name)?;
        let settings = asked.over(&GroupSettings::default());
        check_settings(&settings)?;
        let room = self.settings_room(name, &settings).await?;
        let decided = self.decide_create_group(room, name, &settings);
        self.configured(decided).await
    }

    fn decide_create_group(
        &self,
        room: Room,
        name: &str,
        settings: &GroupSettings,
    ) -> Result<(GroupInfo, u64), Error> {
        let mut groups = self.truth.groups.lock();
        let there = groups.get(name).map(|group| (group.number, group.settings.clone()));
        match there {
            None => self.check_room_for_groups(&groups, true, 0)?,
            Some((number, Some(there))) => {
                differs(&there, settings)
                    .map_or(Ok(()), |differs| Err(Error::GroupExists { group: name.to_owned(), differs }))?;
                return Ok((self.described(&groups, name)?, number));
            }
            // It was made by a commit or a member, and nobody chose its settings.
            Some((_, None)) => {}
        }
        self.configure(room, &mut groups, name, settings)
    }

    /// Changes settings; what is `None` stays as it is.
    ///
    /// # Errors
    /// `GroupNotFound`, `InvalidArgument`.
    pub async fn update_group(&self, name: &str, asked: GroupChange) -> Result<GroupInfo, Error> {
        let room = self.settings_room(name, &GroupSettings::default()).await?;
        let decided = self.decide_update_group(room, name, &asked);
        self.configured(decided).await
    }

    fn decide_update_group(
        &self,
        room: Room,
        name: &str,
        asked: &GroupChange,
    ) -> Result<(GroupInfo, u64), Error> {
        let mut groups = self.truth.groups.lock();
        let before = groups.get(name).ok_or_else(|| group_not_found(&groups, name))?;
        let settings = asked.over(&before.settings());
        check_settings(&settings)?;
        if settings.filter != before.settings().filter {
            return Err(Error::argument(
                "config.filter",
                "a group's filter cannot be changed: make another group",
            ));
        }
        if before.settings.as_deref() == Some(&settings) {
            return Ok((self.described(&groups, name)?, before.number));
        }
        self.configure(room, &mut groups, name, &settings)
    }

    async fn settings_room(&self, name: &str, settings: &GroupSettings) -> Result<Room, Error> {
        let bytes = SETTINGS_BYTES + (name.len() + settings.filter.len()) as u64;
        self.room(room_for(bytes, 1), Class::Control).await
    }

    fn configure(
        &self,
        room: Room,
        groups: &mut Groups,
        name: &str,
        settings: &GroupSettings,
    ) -> Result<(GroupInfo, u64), Error> {
        let settings = Some(settings.to_entry());
        let body = Body::GroupConfigured(internal::GroupConfigured { group: name.to_owned(), settings });
        let number = self.enqueue(room, vec![Change::State(write_entry(body.clone()))])?;
        groups.apply(number, &body);
        Ok((self.described(groups, name)?, number))
    }

    pub(super) async fn configured(
        &self,
        decided: Result<(GroupInfo, u64), Error>,
    ) -> Result<GroupInfo, Error> {
        match decided {
            Ok((group, number)) => {
                self.written(number).await?;
                Ok(group)
            }
            Err(error) => self.refuse(error).await,
        }
    }

    /// One group, with its members and what they own.
    ///
    /// # Errors
    /// `GroupNotFound`.
    pub async fn get_group(&self, name: &str) -> Result<GroupInfo, Error> {
        let found = {
            let groups = self.truth.groups.lock();
            let number = groups.get(name).map_or(0, |group| group.number);
            self.described(&groups, name).map(|group| (group, number))
        };
        match found {
            Ok((described, number)) => {
                self.read_durable(number).await?;
                Ok(described)
            }
            Err(error) => self.refuse(error).await,
        }
    }

    pub(super) fn described(&self, groups: &Groups, name: &str) -> Result<GroupInfo, Error> {
        let group = groups.get(name).ok_or_else(|| group_not_found(groups, name))?;
        let sessions = self.truth.sessions.lock();
        let topics = self.truth.topics.lock();
        Ok(GroupInfo { members: members(name, group, &topics, &sessions), ..describe(name, group, &topics) })
    }

    /// Groups in order of name, without their members.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn list_groups(&self, request: PageRequest) -> Result<Page<GroupInfo>, Error> {
        let (page, number) = self.page_of_groups(&request)?;
        self.read_durable(number).await?;
        Ok(page)
    }

    /// A page, and the number of the newest entry it was read from.
    fn page_of_groups(&self, request: &PageRequest) -> Result<(Page<GroupInfo>, u64), Error> {
        let mut page = Filling::new(request)?;
        let groups = self.truth.groups.lock();
        let topics = self.truth.topics.lock();
        let mut items = Vec::new();
        for (name, group) in groups.page(&request.page_token, &request.prefix) {
            let item = describe(name, group, &topics);
            let bytes = name.len() + 64 + item.topics.iter().map(|topic| topic.len() + 3).sum::<usize>();
            if !page.takes(name, bytes) {
                break;
            }
            items.push(item);
        }
        Ok((Page { items, next_page_token: page.next_page_token() }, groups.number().max(topics.number())))
    }

    /// Deletes a group and its positions.
    ///
    /// # Errors
    /// `GroupNotFound`, `GroupHasMembers`.
    pub async fn delete_group(&self, name: &str) -> Result<(), Error> {
        let room = self.room(room_for(name.len() as u64, 1), Class::Control).await?;
        match self.decide_delete_group(room, name) {
            Ok(number) => self.written(number).await,
            Err(error) => self.refuse(error).await,
        }
    }

    fn decide_delete_group(&self, room: Room, name: &str) -> Result<u64, Error> {
        let mut groups = self.truth.groups.lock();
        let group = groups.get(name).ok_or_else(|| group_not_found(&groups, name))?;
        let members = group.membership.members.len();
        if members > 0 {
            let way_out = "Let them leave (a stopped one is out after the session timeout), then delete it";
            return Err(Error::GroupHasMembers { group: name.to_owned(), members, way_out });
        }
        let body = Body::GroupDeleted(internal::GroupDeleted { group: name.to_owned() });
        let number = self.enqueue(room, vec![Change::State(write_entry(body.clone()))])?;
        groups.apply(number, &body);
        self.rates.forget_group(name);
        Ok(number)
    }
}

impl GroupChange {
    fn over(&self, before: &GroupSettings) -> GroupSettings {
        GroupSettings {
            start: self.start.unwrap_or(before.start),
            heartbeat_interval_ms: self.heartbeat_interval_ms.unwrap_or(before.heartbeat_interval_ms),
            session_timeout_ms: self.session_timeout_ms.unwrap_or(before.session_timeout_ms),
            revoke_timeout_ms: self.revoke_timeout_ms.unwrap_or(before.revoke_timeout_ms),
            stop_at_gap: self.stop_at_gap.unwrap_or(before.stop_at_gap),
            filter: self
                .filter
                .as_ref()
                .map_or_else(|| before.filter.clone(), |filter| filter.message().encode_to_vec().into()),
            ..before.clone()
        }
    }
}

pub(super) fn check_name(name: &str) -> Result<(), Error> {
    check_group_name(name).map_err(|error| Error::InvalidName {
        field: "group",
        name: name.chars().take(64).collect(),
        why: error.to_string(),
    })
}

fn check_settings(settings: &GroupSettings) -> Result<(), Error> {
    let ranges = [
        (
            "config.heartbeat_interval_ms",
            settings.heartbeat_interval_ms,
            MIN_GROUP_HEARTBEAT_MS,
            MAX_GROUP_HEARTBEAT_MS,
        ),
        (
            "config.session_timeout_ms",
            settings.session_timeout_ms,
            MIN_SESSION_TIMEOUT_MS,
            MAX_SESSION_TIMEOUT_MS,
        ),
        (
            "config.revoke_timeout_ms",
            settings.revoke_timeout_ms,
            MIN_REVOKE_TIMEOUT_MS,
            MAX_REVOKE_TIMEOUT_MS,
        ),
    ];
    for (field, value, least, most) in ranges {
        if value < least || value > most {
            return Err(Error::argument(field, format!("{value} is not within {least}..={most}")));
        }
    }
    let twice = settings.heartbeat_interval_ms.saturating_mul(2);
    if settings.session_timeout_ms < twice {
        let why = format!(
            "{} is less than twice the heartbeat interval, {}: one lost heartbeat would end a member",
            settings.session_timeout_ms, settings.heartbeat_interval_ms
        );
        return Err(Error::argument("config.session_timeout_ms", why));
    }
    Ok(())
}

/// The first setting that is not the same.
fn differs(there: &GroupSettings, asked: &GroupSettings) -> Option<String> {
    fn one<T: PartialEq + std::fmt::Debug>(name: &str, there: &T, asked: &T) -> Option<String> {
        (there != asked).then(|| format!("{name} is {there:?}, not {asked:?}"))
    }
    one("start", &there.start, &asked.start)
        .or_else(|| one("heartbeat_interval_ms", &there.heartbeat_interval_ms, &asked.heartbeat_interval_ms))
        .or_else(|| one("session_timeout_ms", &there.session_timeout_ms, &asked.session_timeout_ms))
        .or_else(|| one("revoke_timeout_ms", &there.revoke_timeout_ms, &asked.revoke_timeout_ms))
        .or_else(|| one("stop_at_gap", &there.stop_at_gap, &asked.stop_at_gap))
        .or_else(|| (there != asked).then(|| "its filter, or what makes it a shadow of another".to_owned()))
}

pub(super) fn group_not_found(groups: &Groups, name: &str) -> Error {
    let did_you_mean = nearest(name, groups.names().map(AsRef::as_ref));
    Error::GroupNotFound { group: name.to_owned(), did_you_mean }
}

fn describe(name: &str, group: &Group, topics: &Topics) -> GroupInfo {
    let ids: BTreeSet<_> = group.positions.keys().map(|key| key.topic).collect();
    let mut names: Vec<Arc<str>> = ids.iter().filter_map(|id| topics.name(*id)).cloned().collect();
    names.sort_unstable();
    GroupInfo {
        name: Arc::from(name),
        topics: names,
        committed_partitions: u32::try_from(group.positions.len()).unwrap_or(u32::MAX),
        last_commit_ms: group.positions.values().map(|committed| committed.commit_time_ms).max().unwrap_or(0),
        settings: group.settings(),
        generation: group.membership.generation,
        member_count: u32::try_from(group.membership.members.len()).unwrap_or(u32::MAX),
        members: Vec::new(),
    }
}

/// Members of a group, in order of id, and what each owns, in order of topic and partition.
fn members(name: &str, group: &Group, topics: &Topics, sessions: &Sessions) -> Vec<MemberInfo> {
    let mut owned: BTreeMap<&Arc<str>, Vec<OwnedPartition>> = BTreeMap::new();
    for (key, one) in &group.membership.owned {
        let Some(topic) = topics.name(key.topic).cloned() else { continue };
        owned.entry(&one.member).or_default().push(OwnedPartition {
            place: Place { topic, partition: key.partition },
            assignment_epoch: one.epoch,
            revoking: one.revoking,
        });
    }
    let member = |(id, member): (&Arc<str>, &crate::state::Member)| {
        let mut partitions = owned.remove(id).unwrap_or_default();
        partitions.sort_unstable_by(|a, b| {
            (&a.place.topic, a.place.partition).cmp(&(&b.place.topic, b.place.partition))
        });
        MemberInfo {
            id: Arc::clone(id),
            name: Arc::clone(&member.name),
            peer: sessions.desk(name, id).map(|desk| Arc::clone(&desk.peer)).unwrap_or_default(),
            partitions,
        }
    };
    group.membership.members.iter().map(member).collect()
}
