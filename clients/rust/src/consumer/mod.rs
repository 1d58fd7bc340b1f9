//! A member of a group.
//!
//! ```text
//!   application -- next, commit, close --> Consumer <== events == driver (a task) <== stream ==> server
//!                                              \==== commands ====>/
//! ```
//!
//! 1. The driver's task speaks for the member whatever the application does: a slow handler does not cost the membership.
//!    What is received ahead is bounded in bytes ([`ConsumerBuilder::prefetch_bytes`]).
//! 2. Nothing is committed by itself.
//! 3. A revoked partition is released as soon as everything of it that was handed out is committed (or at once, if that is
//!    so already); what was received ahead of it is dropped unseen.
//! 4. A lost connection is made again under the same name: within the session timeout the partitions stay the member's,
//!    under new assignment epochs. A commit that was under way then has an unknown outcome, and what was handed out before
//!    comes again from where the group stands.

mod driver;
mod held;

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use annals_wire::v1;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tonic::Code;

use crate::{
    backoff::Backoff,
    client::Client,
    clock,
    error::{Error, Result, reason},
    reader::{Filter, OnState, PartitionFailure, Records},
};
use driver::{Command, Driver};
use held::Held;

/// How long [`Consumer::close`] waits for the server's word.
const CLOSE: Duration = Duration::from_secs(1);

/// What a [`Consumer`] says.
#[derive(Debug)]
pub enum Consumed {
    /// Records of one partition.
    Records(Delivery),
    /// Everything of one partition is read, up to its high watermark.
    CaughtUp {
        /// Topic name.
        topic: String,
        /// Partition.
        partition: u32,
        /// Offset at which it was true.
        next_offset: i64,
    },
    /// More partitions are this member's.
    Assigned(Vec<v1::AssignedPartition>),
    /// Fewer are: no more records of them come. They are released by the commit of what was handed out, or by
    /// [`Consumer::release`].
    Revoked {
        /// Which.
        partitions: Vec<v1::TopicPartition>,
        /// Time left to commit; zero = they are lost, and what was handed out of them comes again, here or elsewhere.
        deadline: Duration,
    },
    /// This partition is read no more.
    Failed(PartitionFailure),
}

/// Records, and under which assignment they came: what is committed of them counts only as long as that holds.
#[derive(Clone, Debug)]
pub struct Delivery {
    records: Records,
    assignment_epoch: u32,
}

impl Delivery {
    /// What to commit once everything below `next_offset` is processed.
    pub fn position(&self, next_offset: i64) -> v1::CommitPosition {
        let assignment_epoch = self.assignment_epoch;
        v1::CommitPosition { assignment_epoch, ..self.records.commit_position(next_offset) }
    }

    /// What to commit once all of it is processed.
    pub fn processed(&self) -> v1::CommitPosition {
        self.position(self.records.next_offset())
    }

    /// Goes with every commit of these records.
    pub fn assignment_epoch(&self) -> u32 {
        self.assignment_epoch
    }
}

impl Deref for Delivery {
    type Target = Records;

    fn deref(&self) -> &Records {
        &self.records
    }
}

/// A member that is to be. Made by [`Client::consumer`].
#[derive(Clone)]
#[must_use = "nobody joins before `join`"]
pub struct ConsumerBuilder {
    client: Client,
    join: v1::ConsumeJoin,
    prefetch_bytes: u64,
    backoff: Backoff,
    on_state: Option<OnState>,
}

impl Client {
    /// A member of a group, to be.
    ///
    /// ```no_run
    /// use annals_client::{Client, Consumed};
    /// # async fn example() -> annals_client::Result<()> {
    /// let client = Client::connect("127.0.0.1:7411").await?;
    /// let mut consumer = client.consumer("billing").topic("orders").join().await?;
    /// while let Some(event) = consumer.next().await? {
    ///     if let Consumed::Records(records) = event {
    ///         println!("{} records of partition {}", records.count()?, records.partition());
    ///         match consumer.commit(vec![records.processed()]).await {
    ///             Err(error) if error.is_fenced() => {} // they come again, here or elsewhere
    ///             outcome => outcome?,
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn consumer(&self, group: &str) -> ConsumerBuilder {
        let member_name = format!("rust-{:016x}", clock::random());
        ConsumerBuilder {
            client: self.clone(),
            join: v1::ConsumeJoin { group: group.to_owned(), member_name, ..Default::default() },
            prefetch_bytes: 4 << 20,
            backoff: Backoff { attempts: u32::MAX, ..Backoff::default() },
            on_state: None,
        }
    }
}

impl ConsumerBuilder {
    /// Reads this topic, too. It need not exist yet.
    pub fn topic(mut self, topic: &str) -> Self {
        self.join.topics.push(topic.to_owned());
        self
    }

    /// Reads all topics whose names start so, also those made later; dead letters (`.dlq`) excepted.
    pub fn topic_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.join.topic_prefix);
        self
    }

    /// A name that outlives the process: whoever joins under it within the session timeout gets its partitions back. By
    /// default a random one.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.join.member_name);
        self
    }

    /// Bytes of batches received ahead of the application. Default 4 MiB.
    pub fn prefetch_bytes(mut self, bytes: u64) -> Self {
        self.prefetch_bytes = bytes.max(1);
        self
    }

    /// Leaves out on the server what does not meet this. It belongs to the group: its first member brings it, others name the
    /// same or none.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.join.filter = Some(filter.into());
        self
    }

    /// Steps over damaged data, saying so in [`Records::gaps`].
    pub fn skip_damaged(mut self, skip: bool) -> Self {
        self.join.skip_damaged = skip;
        self
    }

    /// How patiently a lost connection is made again. Default: for ever, at most two seconds apart.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Told of every change of the connection; must not block.
    pub fn on_state(mut self, on_state: OnState) -> Self {
        self.on_state = Some(on_state);
        self
    }

    /// Joins. Waits while a member of the same name lives, one session timeout at most.
    ///
    /// # Errors
    /// `MALFORMED`, `INVALID_NAME`, `MEMBER_NAME_IN_USE`, `LIMIT_REACHED`; whatever keeps the server from being reached.
    pub async fn join(self) -> Result<Consumer> {
        let (commands, heard) = mpsc::unbounded_channel();
        let (said, events) = mpsc::unbounded_channel();
        let (ready, joined) = oneshot::channel();
        let held = Arc::new(Mutex::new(Held::default()));
        let driver = Driver::new(self, Arc::clone(&held), heard, said, ready);
        tokio::spawn(driver.run());
        let member_id = joined.await.unwrap_or_else(|_| Err(ended()))?;
        Ok(Consumer { commands, events, held, member_id })
    }
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("join", &self.join)
            .field("prefetch_bytes", &self.prefetch_bytes)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

/// What the driver hands to the application.
#[derive(Debug)]
enum Item {
    /// With the bytes it counts for.
    Records(Delivery, u64),
    Other(Consumed),
    /// The membership ends with this.
    Failed(Error),
}

/// A member of a group. It leaves when it is dropped; [`Consumer::close`] waits for it.
#[derive(Debug)]
pub struct Consumer {
    commands: mpsc::UnboundedSender<Command>,
    events: mpsc::UnboundedReceiver<Item>,
    held: Arc<Mutex<Held>>,
    member_id: String,
}

impl Consumer {
    /// Given by the server when the member joined first.
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// What comes next; `None` once it is closed. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// What ends the membership: a refusal that does not go away by itself.
    pub async fn next(&mut self) -> Result<Option<Consumed>> {
        loop {
            match self.events.recv().await {
                None => return Ok(None),
                Some(Item::Failed(error)) => return Err(error),
                Some(Item::Other(event)) => return Ok(Some(event)),
                Some(Item::Records(records, bytes)) => {
                    self.tell(Command::Taken(bytes));
                    let place = (records.topic().to_owned(), records.partition());
                    // Received ahead, and somebody else's by now.
                    if self.held.lock().hand(&place, records.assignment_epoch, records.next_offset()) {
                        return Ok(Some(Consumed::Records(records)));
                    }
                }
            }
        }
    }

    /// Stores positions, all or none; they are on disk when this returns. [`Delivery::processed`] gives them.
    ///
    /// # Errors
    /// [`Error::is_fenced`]: the partition is not this member's any more; nothing was stored, and the records come again.
    /// [`Error::is_outcome_unknown`]: the connection broke before the answer.
    pub async fn commit(&self, positions: Vec<v1::CommitPosition>) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Commit(positions, reply));
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Positions were stored by a step ([`Client::append_and_commit`]): what is to be handed over with them is.
    pub fn stored(&self, positions: Vec<v1::CommitPosition>) {
        self.tell(Command::Stored(positions));
    }

    /// Gives back all revoked partitions now, whatever of them is committed: what is not comes again elsewhere.
    pub fn release(&self) {
        self.tell(Command::Release);
    }

    /// Sends nothing more of these until they are resumed. What was received ahead still comes.
    pub fn pause(&self, partitions: Vec<v1::TopicPartition>) {
        self.tell(Command::Pause(partitions));
    }

    /// Goes on with these.
    pub fn resume(&self, partitions: Vec<v1::TopicPartition>) {
        self.tell(Command::Resume(partitions));
    }

    /// The partitions that are this member's, those that are to be handed over excepted.
    pub fn partitions(&self) -> Vec<v1::TopicPartition> {
        driver::named(self.held.lock().places())
    }

    /// Leaves the group: its partitions go to others at once. Waits for the server's word, a second at most; then they go
    /// to others after the session timeout.
    pub async fn close(self) {
        let (reply, left) = oneshot::channel();
        self.tell(Command::Close(reply));
        // Late or never: there is nothing more to be done about it.
        let _left = tokio::time::timeout(CLOSE, left).await;
    }

    fn tell(&self, command: Command) {
        // Nobody listens once the membership is over; what waits for an answer sees that.
        let _over = self.commands.send(command);
    }
}

fn ended() -> Error {
    Error::new(Code::Cancelled, reason::CONSUMER_CLOSED, "the membership has ended")
}
