//! Waiting: for room in the journal before a change, and for its entry to be durable after it.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Broker, Error, RETRY_SOON, catalog::Topic};
use crate::{
    storage::{AppendError, Change, Class, CommitError, NoRoom, PartitionKey, Room},
    sync::Arc,
};

/// What an item takes in the journal beside its entries.
const ITEM_ROOM: u64 = 8 * 1024;
/// What an entry takes beside its bytes.
const ENTRY_ROOM: u64 = 256;
/// Room is asked for again after this time even if nobody calls: a lost call must not cost more than that.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Room that an item of `entries` entries with so many bytes in all takes in the journal.
pub(crate) fn room_for(bytes: u64, entries: usize) -> u64 {
    bytes + ENTRY_ROOM * entries as u64 + ITEM_ROOM
}

impl Broker {
    /// Sets room aside, before any lock; waits a while if there is none.
    pub(super) async fn room(&self, bytes: u64, class: Class) -> Result<Room, Error> {
        if let Some(room) = self.try_room(bytes, class)? {
            return Ok(room);
        }
        let wait = async {
            loop {
                let (call, called) = oneshot::channel();
                self.storage.on_room(Box::new(move || {
                    // Nobody waits any more if the request was dropped.
                    let _dropped = call.send(());
                }));
                if let Some(room) = self.try_room(bytes, class)? {
                    return Ok(room);
                }
                let _called_or_time_to_look = tokio::time::timeout(ASK_AGAIN, called).await;
                if let Some(room) = self.try_room(bytes, class)? {
                    return Ok(room);
                }
            }
        };
        let mut draining = self.drain.subscribe();
        tokio::select! {
            room = wait => room,
            () = tokio::time::sleep(self.config.room_wait) => Err(Error::Throttled { retry_delay: RETRY_SOON }),
            // Records do not hold up the end of the broker; what is small and decided goes on.
            _drained = draining.wait_for(Option::is_some), if class == Class::Data => {
                Err(Error::ShuttingDown { retry_delay: RETRY_SOON })
            }
        }
    }

    fn try_room(&self, bytes: u64, class: Class) -> Result<Option<Room>, Error> {
        match self.storage.reserve(bytes, class) {
            Ok(room) => Ok(Some(room)),
            Err(NoRoom::Busy) => Ok(None),
            Err(NoRoom::TooLarge) => Err(Error::RequestTooLarge {
                size: bytes,
                limit: self.config.limits.max_request_bytes.into(),
            }),
            Err(NoRoom::Closed) => Err(Error::ShuttingDown { retry_delay: RETRY_SOON }),
        }
    }

    /// Enqueues changes. The caller holds the locks under which they were decided, and applies them before it lets go.
    /// Returns the number of the last.
    pub(super) fn enqueue(&self, room: Room, changes: Vec<Change>) -> Result<u64, Error> {
        self.storage.submit(room, changes).map_err(|error| match error {
            AppendError::DiskFull => Error::DiskFull { retry_delay: super::RETRY_FULL },
            AppendError::Unsettled { key } => {
                Error::PartitionFenced { topic: self.name_of(key), partition: key.partition }
            }
            _ => Error::ShuttingDown { retry_delay: RETRY_SOON },
        })
    }

    /// Waits for the entry of a change that this call made. 0 = there is nothing to wait for.
    pub(super) async fn written(&self, number: u64) -> Result<(), Error> {
        if number == 0 {
            return Ok(());
        }
        self.storage.durable(number).await.map_err(|_| Error::OutcomeUnknown)
    }

    /// Waits for the newest entry that an answer was read from. 0 = there is none.
    pub(super) async fn read_durable(&self, number: u64) -> Result<(), Error> {
        if number == 0 {
            return Ok(());
        }
        self.storage.durable(number).await.map_err(|_| Error::ShuttingDown { retry_delay: RETRY_SOON })
    }

    /// Waits for everything that a refusal may have been decided from, then hands it over.
    pub(super) async fn refuse<T>(&self, error: Error) -> Result<T, Error> {
        // Whatever becomes of those entries, this call changed nothing; but if the journal is gone, so is the reason.
        match self.storage.durable(self.storage.last_number()).await {
            Ok(()) | Err(CommitError::Fenced) => Err(error),
            Err(CommitError::Closed) => Err(Error::ShuttingDown { retry_delay: RETRY_SOON }),
        }
    }

    /// A topic whose making, or last change, is durable.
    pub(super) async fn topic(&self, name: &str) -> Result<Arc<Topic>, Error> {
        let Some(topic) = self.catalog.get(name) else {
            return self.refuse(self.topic_not_found(name)).await;
        };
        self.settle(&topic).await?;
        Ok(topic)
    }

    pub(super) async fn settle(&self, topic: &Topic) -> Result<(), Error> {
        if let Some(number) = topic.unsettled() {
            self.read_durable(number).await?;
            topic.settle();
        }
        Ok(())
    }

    /// What a partition's topic is called, or its id if it has no name any more.
    pub(super) fn name_of(&self, key: PartitionKey) -> String {
        self.catalog.name_of(key.topic).map_or_else(|| key.topic.to_string(), |name| name.to_string())
    }

    pub(super) fn topic_not_found(&self, name: &str) -> Error {
        Error::TopicNotFound { topic: name.to_owned(), did_you_mean: self.catalog.nearest(name) }
    }
}
