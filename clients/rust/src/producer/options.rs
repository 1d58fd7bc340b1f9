//! How a producer behaves, and what it is given.

use std::{fmt, sync::Arc, time::Duration};

use annals_wire::{builder::BatchBuilder, limits, v1};

use crate::{backoff::Backoff, error::Error};

/// A record to publish; borrows everything, as it is encoded at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// Chooses the partition; records of one key stay in order. `None` = any partition.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order: names of 1..=255 bytes.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Milliseconds since 1970; `None` = the server's clock at append.
    pub timestamp_ms: Option<i64>,
    /// Overrules the key's choice.
    pub partition: Option<u32>,
}

impl<'a> NewRecord<'a> {
    /// A record with a value and nothing else.
    pub fn new(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { value: Some(value.as_ref()), ..Self::default() }
    }

    /// A record that says: this key is gone.
    pub fn tombstone(key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: Some(key.as_ref()), ..Self::default() }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the headers.
    #[must_use]
    pub fn headers(mut self, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the time, milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Sets the partition, whatever the key says.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// What the server allows a batch to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    /// Largest record, tag and length included.
    pub(crate) record_bytes: usize,
    /// Largest batch.
    pub(crate) batch_bytes: usize,
}

impl BatchLimits {
    /// As the server has told them; where it has not, as this release's servers have them.
    pub(crate) fn of(limits: &v1::Limits) -> Self {
        let or = |told: u32, usual: usize| if told == 0 { usual } else { told as usize };
        Self {
            record_bytes: or(limits.max_record_bytes, limits::MAX_RECORD_BYTES),
            batch_bytes: or(limits.max_batch_bytes, limits::DEFAULT_MAX_BATCH_BYTES),
        }
    }

    /// A builder within them.
    pub(crate) fn builder(self) -> BatchBuilder {
        BatchBuilder::new(self.record_bytes, self.batch_bytes)
    }
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Stored, and as durable as `append.durability` says.
    Stored {
        /// Where.
        append: v1::PartitionAppend,
        /// Encoded bytes of the whole batch it was sent in.
        bytes: usize,
    },
    /// Not stored, or, if [`Error::is_outcome_unknown`], perhaps.
    Failed {
        /// Records concerned.
        records: u32,
        /// Why.
        error: Error,
    },
}

/// Called for each outcome, in the order of the answers, from the producer's own task: it must not block.
pub type OnOutcome = Arc<dyn Fn(&Outcome) + Send + Sync>;

/// How a [`Producer`](super::Producer) behaves.
#[derive(Clone)]
pub struct ProducerOptions {
    /// A batch is sent when it has so many bytes (encoded); at most the server's limit. Default 256 KiB. It grows on, up to that
    /// limit, while as many of its partition are on their way as the server would know again (64).
    pub batch_bytes: usize,
    /// ... or is so old. Zero sends each record as soon as the connection takes it. Default 5 ms.
    pub linger: Duration,
    /// Bytes that may be unanswered, open batches included, before `send` waits. Default 16 MiB.
    pub max_in_flight_bytes: usize,
    /// What an ack must mean; unspecified = what the topic says, never less than that.
    pub durability: v1::Durability,
    /// Batches carry sequences, where the server and the partition allow it: one whose answer got lost is sent again and stored
    /// once. Default: yes.
    pub idempotent: bool,
    /// How patiently batches are sent again that are known not to be stored, or that the server would know again.
    pub backoff: Backoff,
    /// After a failure nothing more is sent: the rest fails too, as not stored. Default: later batches go on.
    pub stop_on_failure: bool,
    /// Told of every batch's outcome.
    pub on_outcome: Option<OnOutcome>,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            batch_bytes: 256 << 10,
            linger: Duration::from_millis(5),
            max_in_flight_bytes: 16 << 20,
            durability: v1::Durability::Unspecified,
            idempotent: true,
            backoff: Backoff { attempts: 10, ..Backoff::default() },
            stop_on_failure: false,
            on_outcome: None,
        }
    }
}

impl fmt::Debug for ProducerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerOptions")
            .field("batch_bytes", &self.batch_bytes)
            .field("linger", &self.linger)
            .field("max_in_flight_bytes", &self.max_in_flight_bytes)
            .field("durability", &self.durability)
            .field("idempotent", &self.idempotent)
            .field("backoff", &self.backoff)
            .field("stop_on_failure", &self.stop_on_failure)
            .finish_non_exhaustive()
    }
}
