//! Joining, and the ears' side of a member: what it says.

use std::time::Duration;

use annals_wire::{limits::MAX_NAME_BYTES, names::check_group_name, v1};
use prost::Message as _;

use super::{
    super::{Broker, CodecSet, Commit, CommitPosition, Error, Filter, RETRY_SOON, read::ReadRules},
    beat::TICK_MS,
    consumption::Consumption,
    coordinate::Joining,
    desk::{Ack, Desk, End},
    sessions::Name,
};
use crate::{
    state::{GroupSettings, Subscription},
    storage::PartitionKey,
    sync::Arc,
};

/// Most topics that a member names.
const MOST_TOPICS: usize = 1024;
/// Between two looks at a name that is in use.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A wish to be a member.
#[derive(Clone, Debug)]
pub struct Join {
    /// Group; made on first use.
    pub group: Arc<str>,
    /// What it reads.
    pub subscription: Subscription,
    /// The same name gets its partitions back; empty = none.
    pub member_name: String,
    /// Bytes it has room for.
    pub credit: u64,
    /// Codecs it unpacks.
    pub accept_codecs: CodecSet,
    /// Step over damage and say so in the gaps.
    pub skip_damaged: bool,
    /// What it is not to be sent; `None` = what the group says.
    pub filter: Option<Arc<Filter>>,
    /// Where it calls from, for people.
    pub peer: Arc<str>,
}

/// What a member says. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemberHandle {
    broker: Arc<Broker>,
    desk: Arc<Desk>,
}

/// Waits for the name of a member, as long as it lives.
struct Waiting<'a> {
    broker: &'a Broker,
    group: Arc<str>,
    member: Arc<str>,
}

impl<'a> Waiting<'a> {
    fn new(broker: &'a Broker, group: &Arc<str>, member: Arc<str>) -> Self {
        broker.truth.sessions.lock().wait(group, &member, true);
        Self { broker, group: Arc::clone(group), member }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.broker.truth.sessions.lock().wait(&self.group, &self.member, false);
    }
}

impl Broker {
    /// Makes somebody a member. A name that lives is waited for, one session timeout at most.
    ///
    /// # Errors
    /// `InvalidName`, `InvalidArgument`, `MemberNameInUse`, `LimitReached`, `Throttled`, `ShuttingDown`.
    pub async fn join(self: &Arc<Self>, join: Join) -> Result<Consumption, Error> {
        check_join(&join)?;
        let place = self.enter_waiting()?;
        let mut wait: Option<(u64, Waiting<'_>)> = None;
        loop {
            if self.draining() {
                return Err(Error::ShuttingDown { retry_delay: RETRY_SOON });
            }
            let in_use = match self.name_of_member(&join) {
                Name::InUse(id) => id,
                Name::Free | Name::Left(_) => {
                    let room = self.move_room().await?;
                    let registrations = super::super::inbox::Registrations::default();
                    let inbox = Arc::clone(registrations.inbox());
                    let make_desk = |id, now| Arc::new(Desk::new(&join, &id, now, inbox));
                    match self.decide_join(room, &join, make_desk) {
                        Ok(Joining::Joined(joined, desk)) => {
                            desk.add_credit(join.credit);
                            let rules = ReadRules {
                                accept: join.accept_codecs,
                                skip_damaged: join.skip_damaged,
                                filter: stored_filter(&joined.settings)?,
                                until: None,
                            };
                            return Ok(Consumption::new(self, desk, &joined, rules, registrations, place));
                        }
                        Ok(Joining::InUse(id)) => id,
                        Err(error) => return self.refuse(error).await,
                    }
                }
            };
            let now = self.beat.now();
            let (until, _) = wait.get_or_insert_with(|| {
                let waiting = Waiting::new(self, &join.group, in_use);
                (now + self.session_timeout(&join.group) + 2 * TICK_MS, waiting)
            });
            if now >= *until {
                let error = Error::MemberNameInUse {
                    group: join.group.to_string(),
                    member_name: join.member_name.clone(),
                };
                return self.refuse(error).await;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn session_timeout(&self, group: &str) -> u64 {
        let groups = self.truth.groups.lock();
        groups.get(group).map(|group| group.settings()).unwrap_or_default().session_timeout_ms.into()
    }
}

/// The filter of a group's settings.
fn stored_filter(settings: &GroupSettings) -> Result<Option<Arc<Filter>>, Error> {
    if settings.filter.is_empty() {
        return Ok(None);
    }
    let unknown = |_| Error::argument("group", "its filter is of a later release");
    let message = v1::Filter::decode(settings.filter.clone()).map_err(unknown)?;
    Filter::new(message).map(|filter| Some(Arc::new(filter)))
}

fn check_join(join: &Join) -> Result<(), Error> {
    check_group_name(&join.group).map_err(|error| Error::InvalidName {
        field: "join.group",
        name: join.group.chars().take(64).collect(),
        why: error.to_string(),
    })?;
    let Subscription { topics, prefix } = &join.subscription;
    if topics.is_empty() && prefix.is_none() {
        return Err(Error::argument("join.topics", "name topics, or a topic_prefix"));
    }
    if topics.len() > MOST_TOPICS {
        let why = format!("{} topics; at most {MOST_TOPICS} are taken. Use a topic_prefix", topics.len());
        return Err(Error::argument("join.topics", why));
    }
    for topic in topics {
        super::super::topics::check_name("join.topics", topic)?;
    }
    let long = |text: &str| text.len() > MAX_NAME_BYTES;
    if prefix.as_deref().is_some_and(long) {
        return Err(Error::argument("join.topic_prefix", format!("longer than {MAX_NAME_BYTES} bytes")));
    }
    if long(&join.member_name) {
        return Err(Error::argument("join.member_name", format!("longer than {MAX_NAME_BYTES} bytes")));
    }
    Ok(())
}

impl MemberHandle {
    pub(super) fn new(broker: &Arc<Broker>, desk: &Arc<Desk>) -> Self {
        Self { broker: Arc::clone(broker), desk: Arc::clone(desk) }
    }

    /// The member gave a sign of life.
    pub fn heard(&self) {
        self.desk.hear(self.broker.beat.now());
    }

    /// The membership is over, whoever ended it: nothing more is listened to.
    pub fn is_over(&self) -> bool {
        self.desk.ended().is_some()
    }

    /// The member has room for so many bytes more.
    pub fn credit(&self, bytes: u64) {
        self.desk.add_credit(bytes);
    }

    /// Sends nothing more of these until they are resumed. What is not the member's changes nothing.
    pub fn pause(&self, places: &[(String, u32)]) {
        self.desk.pause(self.keys(places));
    }

    /// Goes on with these.
    pub fn resume(&self, places: &[(String, u32)]) {
        self.desk.resume(self.keys(places));
    }

    /// Positions to commit; the answer is told by the mouth, in the order of the calls. Waits while too many are unanswered.
    ///
    /// # Errors
    /// `InvalidArgument`, `InvalidName`: the call makes no sense. What is wrong with a sensible one is told in its answer.
    pub async fn commit(&self, commit_id: u64, positions: Vec<CommitPosition>) -> Result<(), Error> {
        let commit = Commit {
            group: self.desk.group.to_string(),
            member_id: self.desk.member.to_string(),
            positions,
            allow_backwards: false,
            override_members: false,
        };
        self.desk.room_for_ack().await;
        let (number, refused) = match self.broker.enter_commit(commit).await {
            Ok(number) => (number, None),
            Err(error @ (Error::InvalidArgument { .. } | Error::Malformed { .. })) => return Err(error),
            // A refusal is told once what it may have been decided from is durable.
            Err(error) => (self.broker.storage.last_number(), Some(error)),
        };
        self.desk.put_ack(Ack { commit_id, number, refused });
        Ok(())
    }

    /// Hands over what was revoked.
    ///
    /// # Errors
    /// `InvalidArgument`: one of them is the member's and was not revoked.
    pub async fn released(&self, places: &[(String, u32)]) -> Result<(), Error> {
        let keys = self.keys(places);
        let room = self.broker.move_room().await?;
        self.broker.decide_released(room, &self.desk, &keys)
    }

    /// Leaves the group; the mouth says when it is done.
    ///
    /// # Errors
    /// `Throttled`, `ShuttingDown`.
    pub async fn leave(&self) -> Result<(), Error> {
        let room = self.broker.move_room().await?;
        let number = self.broker.decide_leave(room, &self.desk)?;
        self.desk.end(End::Left(number));
        Ok(())
    }

    fn keys(&self, places: &[(String, u32)]) -> Vec<PartitionKey> {
        let key = |(name, partition): &(String, u32)| {
            let topic = self.broker.catalog.get(name)?;
            topic.lane(*partition).is_ok().then(|| PartitionKey { topic: topic.id(), partition: *partition })
        };
        places.iter().filter_map(key).collect()
    }
}
