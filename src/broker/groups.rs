//! Groups: look at, delete. A group is made by its first commit and is gone with its last position.

use std::collections::BTreeSet;

use annals_wire::internal::{self, state_entry::Body};

use super::{Broker, Error, GroupInfo, Page, PageRequest, nearest::nearest, page::Filling, settle::room_for};
use crate::{
    state::{Group, Groups, Topics, write_entry},
    storage::{Change, Class, Room},
    sync::Arc,
};

impl Broker {
    /// One group.
    ///
    /// # Errors
    /// `GroupNotFound`.
    pub async fn get_group(&self, name: &str) -> Result<GroupInfo, Error> {
        let found = {
            let groups = self.truth.groups.lock();
            match groups.get(name) {
                Some(group) => Ok((describe(name, group, &self.truth.topics.lock()), group.number)),
                None => Err(group_not_found(&groups, name)),
            }
        };
        match found {
            Ok((described, number)) => {
                self.read_durable(number).await?;
                Ok(described)
            }
            Err(error) => self.refuse(error).await,
        }
    }

    /// Groups in order of name.
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
            let bytes = name.len() + 32 + item.topics.iter().map(|topic| topic.len() + 3).sum::<usize>();
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
    /// `GroupNotFound`.
    pub async fn delete_group(&self, name: &str) -> Result<(), Error> {
        let room = self.room(room_for(name.len() as u64, 1), Class::Control).await?;
        match self.decide_delete_group(room, name) {
            Ok(number) => self.written(number).await,
            Err(error) => self.refuse(error).await,
        }
    }

    fn decide_delete_group(&self, room: Room, name: &str) -> Result<u64, Error> {
        let mut groups = self.truth.groups.lock();
        if groups.get(name).is_none() {
            return Err(group_not_found(&groups, name));
        }
        let body = Body::GroupDeleted(internal::GroupDeleted { group: name.to_owned() });
        let number = self.enqueue(room, vec![Change::State(write_entry(body.clone()))])?;
        groups.apply(number, &body);
        self.rates.forget_group(name);
        Ok(number)
    }
}

fn group_not_found(groups: &Groups, name: &str) -> Error {
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
    }
}
