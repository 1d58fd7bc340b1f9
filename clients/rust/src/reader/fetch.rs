//! Reading once.

use std::time::Duration;

use annals_wire::{slice::FetchBody, v1};
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::{Response, Status};

use super::{filter::Filter, position::Position, records::Records};
use crate::{
    client::{Client, Repeat},
    error::{Error, Result},
    raw::{self, RawMessage},
};

const PATH: PathAndQuery = PathAndQuery::from_static("/annals.v1.ConsumerService/Fetch");

/// How to read.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// How long the server may wait for `min_bytes`; zero = answer at once.
    pub max_wait: Duration,
    /// What is worth answering for; zero = a byte.
    pub min_bytes: u32,
    /// What all slices together aim at. One batch is returned even if larger. Default 1 MiB.
    pub max_bytes: u32,
    /// Step over damaged data, saying so in [`Records::gaps`].
    pub skip_damaged: bool,
    /// What the server leaves out. Default: nothing.
    pub filter: Option<Filter>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { max_wait: Duration::ZERO, min_bytes: 0, max_bytes: 1 << 20, skip_damaged: false, filter: None }
    }
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// One per partition that could answer, also if there is nothing new.
    pub slices: Vec<Records>,
    /// Partitions that could not.
    pub failures: Vec<PartitionFailure>,
}

/// A partition that could not be read.
#[derive(Clone, Debug)]
pub struct PartitionFailure {
    /// Topic name.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Why.
    pub error: Error,
}

impl From<&v1::PartitionError> for PartitionFailure {
    fn from(error: &v1::PartitionError) -> Self {
        Self { topic: error.topic.clone(), partition: error.partition, error: error.into() }
    }
}

/// Codecs this client unpacks.
pub(crate) fn codecs() -> Vec<i32> {
    vec![v1::Codec::Lz4.into(), v1::Codec::Zstd.into()]
}

impl Client {
    /// Reads from 1 to 1,024 positions, once.
    ///
    /// ```no_run
    /// use annals_client::{Client, FetchOptions, Start};
    /// # async fn example() -> annals_client::Result<()> {
    /// let client = Client::connect("127.0.0.1:7411").await?;
    /// let positions = client.positions("orders", &[], &Start::Earliest).await?;
    /// for records in client.fetch(&positions, &FetchOptions::default()).await?.slices {
    ///     println!("partition {}: {} records", records.partition(), records.count()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn fetch(&self, positions: &[Position], options: &FetchOptions) -> Result<Fetched> {
        let request = v1::FetchRequest {
            positions: positions.iter().map(Into::into).collect(),
            max_wait_ms: u32::try_from(options.max_wait.as_millis()).unwrap_or(u32::MAX),
            min_bytes: options.min_bytes,
            max_bytes: options.max_bytes,
            accept_codecs: codecs(),
            filter: options.filter.clone().map(Into::into),
            skip_damaged: options.skip_damaged,
        };
        let message = RawMessage { head: request.encode_to_vec(), ..Default::default() };
        let body = self
            .call(Repeat::Safe, |channel| {
                let message = message.clone();
                async move {
                    let mut answer = raw::call(channel, PATH, tokio_stream::once(message)).await?;
                    let message = answer.next().await?;
                    let message = message.ok_or_else(|| Status::internal("an answer without a message"))?;
                    // How the call ended stands behind the message.
                    answer.next().await?;
                    Ok(Response::new(message))
                }
            })
            .await?;
        let body = FetchBody::parse_pieces(&body).map_err(Error::bad_answer)?;
        Ok(Fetched {
            slices: body.slices.into_iter().map(Records::new).collect(),
            failures: body.errors.iter().map(Into::into).collect(),
        })
    }
}
