//! One request, stored as a whole or not at all, and safe to repeat.

use annals_wire::v1;
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::{Request, Response, Status, client::Grpc};

use super::{
    options::{BatchLimits, NewRecord},
    request::Head,
};
use crate::{
    client::{Client, Repeat},
    clock,
    error::{Code, Error, Result, reason},
    raw::{RawCodec, RawMessage},
};
use annals_wire::builder::{PushError, RecordParts};

const PATH: PathAndQuery = PathAndQuery::from_static("/annals.v1.ProducerService/Produce");

/// What a [`Client::produce`] asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProduceOptions<'a> {
    /// All records go here, whatever their keys say.
    pub partition: Option<u32>,
    /// What the ack must mean; unspecified = what the topic says, never less than that.
    pub durability: v1::Durability,
    /// Store only if this is the partition's next offset. Needs `partition`.
    pub expected_next_offset: Option<i64>,
    /// Makes a repetition harmless.
    pub request_id: RequestId<'a>,
}

/// By what the server knows a request again.
#[derive(Clone, Copy, Debug, Default)]
pub enum RequestId<'a> {
    /// An id of its own for this call.
    #[default]
    Fresh,
    /// This one, of 1..=128 bytes: also another process may repeat the request.
    Given(&'a str),
    /// None: the server has nothing to remember, and what is stored below `fsync` waits for no journal. A call whose answer got
    /// lost is not repeated and ends in [`Error::is_outcome_unknown`].
    Without,
}

impl Client {
    /// Stores a few records: all of them or, if refused, none (at the `fsync` level). Where one request touches several
    /// partitions it is still one. Repeated under its `request_id` when the answer got lost, so nothing is stored twice; without
    /// one only while the server refuses it for the time being.
    ///
    /// ```no_run
    /// use annals_client::{Client, NewRecord, ProduceOptions};
    /// # async fn example() -> annals_client::Result<()> {
    /// let client = Client::connect("127.0.0.1:7411").await?;
    /// let record = NewRecord::new("{\"id\":1}").key("cust-7");
    /// let stored = client.produce("orders", &[record], ProduceOptions::default()).await?;
    /// println!("at offset {}", stored.appends[0].base_offset);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn produce(
        &self,
        topic: &str,
        records: &[NewRecord<'_>],
        options: ProduceOptions<'_>,
    ) -> Result<v1::ProduceResponse> {
        let message = self.produce_message(topic, records, options)?;
        let known = !matches!(options.request_id, RequestId::Without);
        let repeat = if known { Repeat::Safe } else { Repeat::IfRefused };
        let body = self
            .call(repeat, |channel| {
                let message = message.clone();
                async move { call(Grpc::new(channel), PATH, message).await }
            })
            .await
            .map_err(|error| if known { error } else { judged(error) })?;
        v1::ProduceResponse::decode(body).map_err(Error::bad_answer)
    }

    fn produce_message(
        &self,
        topic: &str,
        records: &[NewRecord<'_>],
        options: ProduceOptions<'_>,
    ) -> Result<RawMessage> {
        let limits = BatchLimits::of(&self.limits());
        // A request may touch several partitions; what each of them takes is the server's to check.
        let limits = BatchLimits { batch_bytes: self.limits().max_request_bytes as usize, ..limits };
        let mut builder = limits.builder();
        for record in records {
            let headers = record.headers.iter().copied();
            let (key, value, timestamp_ms) = (record.key, record.value, record.timestamp_ms);
            builder
                .push(RecordParts { key, value, headers, timestamp_ms })
                .map_err(|error| refused(&error))?;
        }
        let run = builder.finish();
        let fresh;
        let request_id = match options.request_id {
            RequestId::Fresh => {
                fresh = clock::request_id();
                &fresh
            }
            RequestId::Given(id) => id,
            RequestId::Without => "",
        };
        let head = Head {
            topic,
            partition: options.partition,
            durability: options.durability,
            expected_next_offset: options.expected_next_offset,
            producer: None,
            records_crc32: run.crc32,
            request_id,
        };
        Ok(head.unary(run.bytes))
    }
}

/// What an error says of a request that nobody can ask about again.
fn judged(error: Error) -> Error {
    let certain = error.is_refusal() || error.is_unreachable() || error.is_outcome_unknown();
    if certain { error } else { Error::outcome_unknown(&error) }
}

pub(super) async fn call(
    mut grpc: Grpc<tonic::transport::Channel>,
    path: PathAndQuery,
    message: RawMessage,
) -> Result<Response<Bytes>, Status> {
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    grpc.unary(Request::new(message), path, RawCodec).await
}

/// What no server would take.
pub(super) fn refused(error: &PushError) -> Error {
    let reason = match error {
        PushError::TooLarge { .. } => reason::RECORD_TOO_LARGE,
        PushError::Full => reason::REQUEST_TOO_LARGE,
        PushError::HeaderName { .. } | PushError::HeaderReserved | PushError::NegativeTime => {
            reason::MALFORMED
        }
    };
    Error::new(Code::InvalidArgument, reason, error.to_string())
}
