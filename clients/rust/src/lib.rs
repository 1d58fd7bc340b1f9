//! The Rust client of Annals, an append-only event log.
//!
//! | to | use |
//! |---|---|
//! | publish many records | [`Client::producer`]: batches, back-pressure, an ack for each |
//! | publish a few, safely repeated | [`Client::produce`] |
//! | read, process, write: each step once | [`Client::step`], [`Client::append_and_commit`] |
//! | read on and on | [`Client::subscribe`]: resumes by itself |
//! | share the reading among the members of a group | [`Client::consumer`]: partitions, commits, hand-overs |
//! | read once | [`Client::fetch`] |
//! | keep a group's place | [`Client::commit`], [`Client::offsets`] |
//! | see how fast it all goes | [`Client::stats`], [`Client::watch_stats`] |
//! | look after topics and groups | [`Client::create_topic`], [`Client::topics`], [`Client::groups`], ... |
//!
//! ```no_run
//! use annals_client::{Client, NewRecord, ProducerOptions};
//!
//! # async fn example() -> annals_client::Result<()> {
//! let client = Client::connect("127.0.0.1:7411").await?;
//! let orders = client.producer("orders", ProducerOptions::default()).await?;
//! let ack = orders.send(&NewRecord::new("{\"id\":1}").key("cust-7")).await?;
//! println!("stored at offset {}", ack.await?.offset);
//! orders.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Records are encoded once, when they are sent, and never decoded into structs when they are read: a read hands out the
//! server's bytes and an iterator over them. Everything is bounded, nothing is dropped in silence: what is not known to be
//! stored is an error of its own kind ([`Error::is_outcome_unknown`]).

mod admin;
mod backoff;
mod client;
mod clock;
mod consumer;
mod endpoint;
mod error;
mod producer;
mod raw;
mod reader;
mod stats;

pub use annals_wire::{limits::MAX_RECORD_BYTES, v1};
pub use backoff::Backoff;
pub use client::{Client, ClientOptions};
pub use consumer::{Consumed, Consumer, ConsumerBuilder, Delivery};
pub use endpoint::DEFAULT_PORT;
pub use error::{Code, Error, Result, reason};
pub use producer::{
    Ack, NewRecord, OnOutcome, Outcome, Placed, ProduceOptions, Producer, ProducerOptions, RequestId, Step,
    TrySendError,
};
pub use reader::{
    Batch, Event, FetchOptions, Fetched, Filter, OnState, PartitionFailure, Position, Reader, ReaderOptions,
    ReaderState, RecordRef, Records, Start,
};
pub use stats::StatsWatch;
