//! Reading on and on, across lost connections.
//!
//! 1. Every partition is asked for by offset, so that after a reconnect nothing is missed and nothing comes twice.
//! 2. A server speaks at least each ten seconds; after 25 s of silence the connection counts as lost.
//! 3. A partition that fails is told once and read no more; the others go on.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use annals_wire::{slice::Subscribed, v1};
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Status;

use super::{
    fetch::{PartitionFailure, codecs},
    filter::Filter,
    position::{Position, Start},
    records::Records,
};
use crate::{
    backoff::Backoff,
    client::Client,
    clock, endpoint,
    error::{Error, Result},
    raw::{self, Messages, RawMessage},
};

const PATH: PathAndQuery = PathAndQuery::from_static("/annals.v1.ConsumerService/Subscribe");
/// Two heartbeats of a server that speaks at least each ten seconds, and some grace.
const SILENCE: Duration = Duration::from_secs(25);
/// How often topics are asked whether they have grown.
const GROWTH: Duration = Duration::from_secs(10);

/// What a [`Reader`] says.
#[derive(Clone, Debug)]
pub enum Event {
    /// Records of one partition.
    Records(Records),
    /// Everything of one partition is read, up to its high watermark.
    CaughtUp {
        /// Topic name.
        topic: String,
        /// Partition.
        partition: u32,
        /// Offset at which it was true.
        next_offset: i64,
    },
    /// This partition is read no more.
    Failed(PartitionFailure),
}

/// What the connection of a [`Reader`] does.
#[derive(Clone, Debug)]
pub enum ReaderState {
    /// Reading.
    Connected,
    /// The connection is lost and will be made again after `retry_in`.
    Lost {
        /// Why.
        error: Error,
        /// When it is tried again.
        retry_in: Duration,
    },
}

/// Told of every change of a [`Reader`]'s connection; must not block.
pub type OnState = Arc<dyn Fn(&ReaderState) + Send + Sync>;

/// How a [`Reader`] behaves.
#[derive(Clone)]
pub struct ReaderOptions {
    /// What a message aims at. Default 1 MiB.
    pub max_bytes: u32,
    /// Step over damaged data, saying so in [`Records::gaps`].
    pub skip_damaged: bool,
    /// What the server leaves out. Default: nothing. While nothing matches, [`Event::Records`] without batches say how far was looked.
    pub filter: Option<Filter>,
    /// How patiently a lost connection is made again. Default: for ever, at most two seconds apart.
    pub backoff: Backoff,
    /// Also read the partitions that these topics get later, from their first record.
    pub follow_growth: bool,
    /// Told of every change of the connection.
    pub on_state: Option<OnState>,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 20,
            skip_damaged: false,
            filter: None,
            backoff: Backoff { attempts: u32::MAX, ..Backoff::default() },
            follow_growth: false,
            on_state: None,
        }
    }
}

impl fmt::Debug for ReaderOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderOptions")
            .field("max_bytes", &self.max_bytes)
            .field("skip_damaged", &self.skip_damaged)
            .field("filter", &self.filter)
            .field("backoff", &self.backoff)
            .field("follow_growth", &self.follow_growth)
            .finish_non_exhaustive()
    }
}

/// A read without end. Made by [`Client::subscribe`].
#[derive(Debug)]
pub struct Reader {
    client: Client,
    options: ReaderOptions,
    positions: Vec<Position>,
    stream: Option<Messages>,
    heard: Instant,
    look_for_growth: Instant,
    failures_in_a_row: u32,
}

impl Client {
    /// Reads on and on from at most 1,024 positions; from none there is nothing to read.
    ///
    /// ```no_run
    /// use annals_client::{Client, Event, ReaderOptions, Start};
    /// # async fn example() -> annals_client::Result<()> {
    /// let client = Client::connect("127.0.0.1:7411").await?;
    /// let from = client.positions("orders", &[], &Start::CommittedBy("billing".to_owned())).await?;
    /// let mut reader = client.subscribe(from, ReaderOptions::default()).await?;
    /// while let Some(event) = reader.next().await? {
    ///     if let Event::Records(records) = event {
    ///         println!("{} records of partition {}", records.count()?, records.partition());
    ///         client.commit("billing", vec![records.commit_position(records.next_offset())]).await?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe(&self, positions: Vec<Position>, options: ReaderOptions) -> Result<Reader> {
        let now = clock::now();
        let mut reader = Reader {
            client: self.clone(),
            options,
            positions,
            stream: None,
            heard: now,
            look_for_growth: now + GROWTH,
            failures_in_a_row: 0,
        };
        if !reader.positions.is_empty() {
            reader.connect().await?;
        }
        Ok(reader)
    }
}

impl Reader {
    /// What comes next; `None` once no partition is left to read. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if self.positions.is_empty() {
                return Ok(None);
            }
            if self.stream.is_none()
                && let Err(error) = self.connect().await
            {
                self.lost(error).await?;
                continue;
            }
            if let Some(event) = self.step().await? {
                return Ok(Some(event));
            }
        }
    }

    /// Where each partition is read on.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    async fn connect(&mut self) -> Result<()> {
        let request = v1::SubscribeRequest {
            positions: self.positions.iter().map(Into::into).collect(),
            max_bytes: self.options.max_bytes,
            accept_codecs: codecs(),
            filter: self.options.filter.clone().map(Into::into),
            skip_damaged: self.options.skip_damaged,
        };
        let message = RawMessage { head: request.encode_to_vec(), ..Default::default() };
        let opened = raw::call(self.client.channel(), PATH, tokio_stream::once(message)).await;
        let opened = opened.map_err(|status| endpoint::name_server(status.into(), self.client.server()))?;
        self.stream = Some(opened);
        self.heard = clock::now();
        self.tell(&ReaderState::Connected);
        Ok(())
    }

    /// One message, or a timer.
    async fn step(&mut self) -> Result<Option<Event>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let growth = if self.options.follow_growth { self.look_for_growth } else { clock::far_future() };
        let message = tokio::select! {
            message = stream.next() => message,
            () = tokio::time::sleep_until(growth) => {
                self.grow().await?;
                return Ok(None);
            }
            () = tokio::time::sleep_until(self.heard + SILENCE) => {
                Err(Status::unavailable("no sign of life from the server for 25 s"))
            }
        };
        match message {
            Ok(Some(message)) => {
                self.heard = clock::now();
                self.failures_in_a_row = 0;
                self.take(&message)
            }
            Ok(None) => {
                self.lost(Error::from(Status::unavailable("the server ended the stream"))).await?;
                Ok(None)
            }
            Err(status) => {
                self.lost(status.into()).await?;
                Ok(None)
            }
        }
    }

    fn take(&mut self, message: &[Bytes]) -> Result<Option<Event>> {
        match Subscribed::parse_pieces(message).map_err(Error::bad_answer)? {
            Subscribed::Slice(slice) => {
                let position = self
                    .positions
                    .iter_mut()
                    .find(|position| position.partition == slice.partition && position.topic == slice.topic)
                    .ok_or_else(|| Error::bad_answer("records of a partition that was not asked for"))?;
                if slice.next_offset < position.next_offset {
                    return Err(Error::bad_answer("a partition went backwards"));
                }
                position.next_offset = slice.next_offset;
                position.last_epoch = Some(slice.leader_epoch);
                Ok(Some(Event::Records(Records::new(slice))))
            }
            Subscribed::CaughtUp(v1::CaughtUp { topic, partition, next_offset, .. }) => {
                Ok(Some(Event::CaughtUp { topic, partition, next_offset }))
            }
            Subscribed::PartitionError(error) => {
                self.positions.retain(|position| {
                    position.partition != error.partition || position.topic != error.topic
                });
                Ok(Some(Event::Failed((&error).into())))
            }
            Subscribed::Drain(_) => {
                self.stream = None;
                Ok(None)
            }
            Subscribed::Heartbeat(_) | Subscribed::Unknown => Ok(None),
        }
    }

    /// Waits before the next try, or gives up.
    async fn lost(&mut self, error: Error) -> Result<()> {
        self.stream = None;
        if !error.is_temporary() {
            return Err(error);
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let retry_in =
            self.options.backoff.wait(self.failures_in_a_row, &error).ok_or_else(|| error.clone())?;
        self.tell(&ReaderState::Lost { error, retry_in });
        tokio::time::sleep_until(clock::now() + retry_in).await;
        Ok(())
    }

    /// Reads new partitions too, from their first record. What cannot be asked now is asked the next time.
    async fn grow(&mut self) -> Result<()> {
        self.look_for_growth = clock::now() + GROWTH;
        let topics: BTreeSet<&str> = self.positions.iter().map(|position| position.topic.as_str()).collect();
        let mut grown = Vec::new();
        for topic in topics {
            match self.client.positions(topic, &[], &Start::Earliest).await {
                Ok(found) => grown.extend(found.into_iter().filter(|new| {
                    let highest = self.positions.iter().filter(|have| have.topic == new.topic);
                    highest.map(|have| have.partition).max().is_some_and(|highest| new.partition > highest)
                })),
                Err(error) if error.is_temporary() => {}
                Err(error) => return Err(error),
            }
        }
        if !grown.is_empty() {
            self.positions.extend(grown);
            self.stream = None;
        }
        Ok(())
    }

    fn tell(&self, state: &ReaderState) {
        if let Some(hook) = &self.options.on_state {
            hook(state);
        }
    }
}
