//! A read-process-write step: what was made of the input, and how far the input is processed, both or neither.

use std::collections::BTreeMap;

use annals_wire::{
    builder::{BatchBuilder, RecordParts},
    v1,
};
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};

use super::{
    options::{BatchLimits, NewRecord},
    request::Head,
    unary::{self, call},
};
use crate::{
    client::{Client, Repeat},
    clock,
    error::{Error, Result},
    raw::RawMessage,
};

const PATH: PathAndQuery = PathAndQuery::from_static("/annals.v1.ProducerService/AppendAndCommit");

/// A step being put together; made by [`Client::step`], done by [`Client::append_and_commit`].
#[derive(Debug)]
pub struct Step {
    request_id: String,
    group: String,
    member_id: String,
    offsets: Vec<v1::CommitPosition>,
    /// By topic, and by partition where the record names one.
    outputs: BTreeMap<(String, Option<u32>), BatchBuilder>,
    limits: BatchLimits,
}

impl Client {
    /// Begins a read-process-write step, under an id of its own.
    pub fn step(&self) -> Step {
        Step {
            request_id: clock::request_id(),
            group: String::new(),
            member_id: String::new(),
            offsets: Vec::new(),
            outputs: BTreeMap::new(),
            limits: BatchLimits::of(&self.limits()),
        }
    }

    /// Does a step: the server stores its records and commits its positions, all or nothing, and on disk before it answers.
    /// Repeated when the answer got lost: the server knows the step by its id.
    ///
    /// What is refused has changed nothing. [`reason::EXPECTED_OFFSET_MISMATCH`](crate::reason::EXPECTED_OFFSET_MISMATCH) says
    /// that somebody else of the group has processed this input: ask where the group stands ([`Client::offsets`]) and go on there.
    ///
    /// ```no_run
    /// use annals_client::{Client, FetchOptions, NewRecord, Start};
    /// # async fn example() -> annals_client::Result<()> {
    /// let client = Client::connect("127.0.0.1:7411").await?;
    /// let from = client.positions("orders", &[], &Start::CommittedBy("billing".into())).await?;
    /// for records in client.fetch(&from, &FetchOptions::default()).await?.slices {
    ///     let mut step = client.step();
    ///     for batch in records.batches() {
    ///         for record in batch?.records() {
    ///             let record = record?;
    ///             step.push("invoices", &NewRecord { key: record.key, value: record.value, ..NewRecord::default() })?;
    ///         }
    ///     }
    ///     step.commit("billing", records.processed());
    ///     client.append_and_commit(step).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn append_and_commit(&self, step: Step) -> Result<v1::AppendAndCommitResponse> {
        let message = step.encode();
        let body = self
            .call(Repeat::Safe, |channel| {
                let message = message.clone();
                async move { call(tonic::client::Grpc::new(channel), PATH, message).await }
            })
            .await?;
        v1::AppendAndCommitResponse::decode(body).map_err(Error::bad_answer)
    }
}

impl Step {
    /// Names the step, so that another process may repeat it: 1..=128 bytes.
    #[must_use]
    pub fn request_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.request_id);
        self
    }

    /// Adds a record to be stored. The server chooses the partition by its key, unless the record names one. In the answer the
    /// records of a topic without partition, and those for each partition, are an output each, in order of topic and
    /// partition; a record's index in its output is its place among those pushed to it.
    ///
    /// # Errors
    /// What no server would take; the step is unchanged then.
    pub fn push(&mut self, topic: &str, record: &NewRecord<'_>) -> Result<()> {
        let key = (topic.to_owned(), record.partition);
        let output = self.outputs.entry(key).or_insert_with(|| self.limits.builder());
        let headers = record.headers.iter().copied();
        let (key, value, timestamp_ms) = (record.key, record.value, record.timestamp_ms);
        output.push(RecordParts { key, value, headers, timestamp_ms }).map_err(|error| unary::refused(&error))
    }

    /// Says how far a partition of the input is processed. `position` carries `expected_offset`, where the group has to stand
    /// now: [`Records::processed`](crate::Records::processed) makes it of what was read. All positions of a step are one group's.
    pub fn commit(&mut self, group: &str, position: v1::CommitPosition) {
        group.clone_into(&mut self.group);
        self.offsets.push(position);
    }

    /// Says that a member of the group did the step: its positions, which [`Delivery::processed`](crate::Delivery::processed)
    /// makes, are guarded by its assignments and need no `expected_offset`. Tell [`Consumer::stored`](crate::Consumer::stored)
    /// afterwards.
    pub fn member(&mut self, member_id: &str) {
        member_id.clone_into(&mut self.member_id);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.outputs.values().all(BatchBuilder::is_empty)
    }

    /// An `AppendAndCommitRequest`, with the records as they were encoded when they were pushed.
    fn encode(self) -> RawMessage {
        let Self { request_id, group, member_id, offsets, outputs, .. } = self;
        let head = v1::AppendAndCommitRequest { request_id, group, member_id, offsets, outputs: vec![] };
        let mut out = head.encode_to_vec();
        for ((topic, partition), mut records) in outputs {
            if records.is_empty() {
                continue;
            }
            let run = records.finish();
            let head = Head { topic: &topic, partition, records_crc32: run.crc32, ..Head::default() };
            let RawMessage { head, run } = head.unary(run.bytes);
            encode_key(15, WireType::LengthDelimited, &mut out);
            encode_varint((head.len() + run.len()) as u64, &mut out);
            out.extend_from_slice(&head);
            out.extend_from_slice(&run);
        }
        RawMessage { head: out, run: Bytes::new() }
    }
}

#[cfg(test)]
mod tests {
    use annals_wire::chunks::Chunks;

    use super::*;

    #[test]
    fn the_generated_decoder_reads_what_was_written_by_hand() {
        let limits = BatchLimits::of(&v1::Limits::default());
        let (group, offsets) = (String::new(), Vec::new());
        let (member_id, outputs) = (String::new(), BTreeMap::new());
        let mut step = Step { request_id: "id".into(), group, member_id, offsets, outputs, limits };
        assert!(step.is_empty());
        step.push("b", &NewRecord::new("1").key("k")).unwrap();
        step.push("a", &NewRecord::new("2").partition(0)).unwrap();
        step.push("b", &NewRecord::new("3")).unwrap();
        assert!(step.push("c", &NewRecord::new("4").timestamp_ms(-1)).is_err());
        let position = v1::CommitPosition { topic: "in".into(), next_offset: 7, ..Default::default() };
        step.commit("g", position.clone());
        step.member("m");
        let message = step.encode();
        let decoded =
            v1::AppendAndCommitRequest::decode([message.head, message.run.to_vec()].concat().as_slice());
        let record = |key: Option<&'static str>, value: &'static str| v1::Record {
            key: key.map(Bytes::from),
            value: Some(Bytes::from(value)),
            ..Default::default()
        };
        let output = |topic: &str, partition, records: Vec<v1::Record>| {
            let run = v1::ProduceRequest { records: records.clone(), ..Default::default() }.encode_to_vec();
            v1::Output {
                topic: topic.into(),
                partition,
                records_crc32: Some(Chunks::from(Bytes::from(run)).crc32()),
                records,
            }
        };
        let expected = v1::AppendAndCommitRequest {
            request_id: "id".into(),
            group: "g".into(),
            member_id: "m".into(),
            offsets: vec![position],
            outputs: vec![
                output("a", Some(0), vec![record(None, "2")]),
                output("b", None, vec![record(Some("k"), "1"), record(None, "3")]),
            ],
        };
        assert_eq!(decoded.unwrap(), expected);
    }
}
