//! Publishing: records into batches, batches over one stream, an ack for each record.
//!
//! ```text
//!  send ----> State: one open batch per partition ----> Puller ====stream====> server
//!    '--Ack <--------------------- outcome <-------------------- acks, in order <--'
//! ```
//!
//! 1. A record is encoded once, into the bytes the log keeps. The client chooses the partition (murmur2 of the key, as
//!    Kafka's clients do; keyless records stay with one partition for a batch), so a batch belongs to one partition.
//! 2. Nothing is dropped: every ack resolves, to an offset or to an error that says what is known.
//! 3. Batches carry sequences: one whose answer got lost is sent again, and the server, which knows it if it has it, stores it
//!    once. Where there are no sequences (an older server, a topic that is not made yet, `idempotent: false`) a batch is sent
//!    again only while it is certain that it is not stored; a lost answer is [`Error::is_outcome_unknown`] then, and
//!    the caller's to judge, as it is when trying again has not helped.
//! 4. Memory is bounded by `max_in_flight_bytes`, and one record more.

mod ack;
mod driver;
mod identity;
mod options;
pub(crate) mod request;
mod state;
mod step;
mod unary;

use std::sync::Arc;

use tokio::task::JoinHandle;

pub use ack::{Ack, Placed};
pub use options::{NewRecord, OnOutcome, Outcome, ProducerOptions};
pub use step::Step;
pub use unary::{ProduceOptions, RequestId};

use crate::{
    client::Client,
    clock,
    error::{Error, Result, reason},
};
use driver::Shared;
use identity::Identity;
use options::BatchLimits;
use state::{NotTaken, State};

/// What a server says that knows sequences.
const IDEMPOTENT: &str = "idempotent_producer";

/// Publishes to one topic. Made by [`Client::producer`].
///
/// ```no_run
/// use annals_client::{Client, NewRecord, ProducerOptions};
/// # async fn example() -> annals_client::Result<()> {
/// let client = Client::connect("127.0.0.1:7411").await?;
/// let orders = client.producer("orders", ProducerOptions::default()).await?;
/// let mut acks = Vec::new();
/// for id in 0..1000 {
///     let value = format!("{{\"id\":{id}}}");
///     acks.push(orders.send(&NewRecord::new(&value).key("cust-7")).await?);
/// }
/// for ack in acks {
///     let placed = ack.await?;
///     println!("partition {} offset {}", placed.partition, placed.offset);
/// }
/// orders.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct Producer {
    shared: Arc<Shared>,
    driver: Option<JoinHandle<()>>,
}

/// Why [`Producer::try_send`] did not take a record.
#[derive(Debug)]
pub enum TrySendError {
    /// Too much is unanswered; wait for [`Producer::ready`].
    Full,
    /// It can never be taken.
    Refused(Error),
}

impl Client {
    /// Begins to publish to a topic. A topic that does not exist is made by the first record, where the server allows it.
    pub async fn producer(&self, topic: &str, options: ProducerOptions) -> Result<Producer> {
        let partitions = match self.topic(topic).await {
            Ok(topic) => u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
            Err(error) if error.reason() == reason::TOPIC_NOT_FOUND => 0,
            Err(error) => return Err(error),
        };
        let limits = BatchLimits::of(&self.limits());
        let options =
            ProducerOptions { batch_bytes: options.batch_bytes.clamp(1, limits.batch_bytes), ..options };
        let known = self.info().features.iter().any(|feature| feature == IDEMPOTENT);
        let identity = if known && options.idempotent { Identity::Wanted } else { Identity::None };
        let state = State::new(topic, partitions, limits, options.clone(), identity, clock::random());
        let shared = Arc::new(Shared::new(self.clone(), topic, options, state));
        let driver = tokio::spawn(driver::drive(Arc::clone(&shared)));
        Ok(Producer { shared, driver: Some(driver) })
    }
}

impl Producer {
    /// Takes a record, waiting for room if too much is unanswered. The ack tells where it was stored.
    pub async fn send(&self, record: &NewRecord<'_>) -> Result<Ack> {
        loop {
            match self.try_send(record) {
                Ok(ack) => return Ok(ack),
                Err(TrySendError::Refused(error)) => return Err(error),
                Err(TrySendError::Full) => self.ready().await,
            }
        }
    }

    /// Takes a record if there is room.
    pub fn try_send(&self, record: &NewRecord<'_>) -> Result<Ack, TrySendError> {
        self.shared.with(|state| match state.push(record, clock::now) {
            Ok(pushed) => (Ok(pushed.ack), pushed.began_or_closed),
            // What fills the room must be on its way, or the room never comes.
            Err(NotTaken::Full) => (Err(TrySendError::Full), state.close_all()),
            Err(NotTaken::Refused(error)) => (Err(TrySendError::Refused(error)), false),
        })
    }

    /// Waits until [`Producer::try_send`] has room.
    pub async fn ready(&self) {
        self.shared.wait_until(State::has_room).await;
    }

    /// Sends what is waiting and waits until everything is answered. An error is the first failure since the last flush.
    pub async fn flush(&self) -> Result<()> {
        self.shared.with(|state| ((), state.close_all()));
        self.shared.wait_until(State::is_empty).await;
        self.shared.read(State::take_failure).map_or(Ok(()), Err)
    }

    /// Takes nothing more, sends what is waiting, and waits until everything is answered.
    pub async fn close(mut self) -> Result<()> {
        self.shared.with(|state| (state.finish(), true));
        if let Some(driver) = self.driver.take() {
            // A driver that panicked has left batches without outcome; nothing else makes it fail.
            driver
                .await
                .map_err(|error| Error::bad_answer(format!("the producer's task failed: {error}")))?;
        }
        self.shared.read(State::take_failure).map_or(Ok(()), Err)
    }

    /// Takes nothing more and sends nothing more: what the server does not have yet fails as not sent.
    pub async fn abort(mut self) {
        let cause = Error::new(crate::Code::Cancelled, reason::PRODUCER_CLOSED, "aborted");
        self.shared.with(|state| (state.stop(&cause), true));
        if let Some(driver) = self.driver.take() {
            // The batches' outcomes have been told; there is nothing to add.
            let _ = driver.await;
        }
    }
}

/// A producer that is dropped still sends what it has taken, as long as the runtime lives.
impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.with(|state| (state.finish(), true));
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("topic", &self.shared.topic).finish_non_exhaustive()
    }
}
