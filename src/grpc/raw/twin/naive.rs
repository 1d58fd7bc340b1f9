//! The services as anybody would write them, and a door that has nothing else.

use std::{convert::Infallible, pin::Pin, task};

use annals_wire::{
    request,
    v1::{
        self,
        consumer_service_server::{ConsumerService, ConsumerServiceServer},
        producer_service_server::{ProducerService, ProducerServiceServer},
        subscribe_response::Event,
    },
};
use bytes::Bytes;
use http::Response;
use http_body::Body;
use prost::Message as _;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming, service::Routes};
use tower::Service;

use super::super::{Hot, MAX_SMALL_REQUEST, open_producer, produce::malformed, step};
use crate::{
    broker::{self, Broker, Principal, SubEvent},
    grpc::{Answering, answer::Answer, convert, front::Call, generated, refusal::Refusal},
    sync::Arc,
};

/// Services as anybody would write them.
#[derive(Clone)]
struct Naive(Arc<Broker>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Naive {
    async fn store(&self, asked: &v1::ProduceRequest) -> Result<v1::ProduceResponse, Refusal> {
        let bytes = Bytes::from(asked.encode_to_vec());
        let scanned = request::scan(&[bytes]).map_err(malformed)?;
        let call = broker::Produce { scanned, principal: Principal::anonymous() };
        Ok(produced(&self.0.produce(call).await?))
    }
}

#[tonic::async_trait]
impl ProducerService for Naive {
    type ProduceStreamStream = Answers<v1::ProduceStreamResponse>;

    async fn produce(
        &self,
        request: tonic::Request<v1::ProduceRequest>,
    ) -> Result<tonic::Response<v1::ProduceResponse>, Status> {
        Ok(tonic::Response::new(self.store(request.get_ref()).await?))
    }

    async fn open_producer(
        &self,
        request: tonic::Request<v1::OpenProducerRequest>,
    ) -> Result<tonic::Response<v1::OpenProducerResponse>, Status> {
        let opened = self.0.open_producer(&Principal::anonymous(), &request.get_ref().name).await;
        Ok(tonic::Response::new(open_producer::response(opened.map_err(Refusal::from)?)))
    }

    async fn append_and_commit(
        &self,
        request: tonic::Request<v1::AppendAndCommitRequest>,
    ) -> Result<tonic::Response<v1::AppendAndCommitResponse>, Status> {
        let bytes = Bytes::from(request.get_ref().encode_to_vec());
        let scanned = request::scan_step(&[bytes]).map_err(malformed)?;
        let step = step::step(scanned, Principal::anonymous())?;
        let v1::ProduceResponse { appends, duplicate } =
            produced(&self.0.append_and_commit(step).await.map_err(Refusal::from)?);
        Ok(tonic::Response::new(v1::AppendAndCommitResponse { appends, duplicate }))
    }

    async fn produce_stream(
        &self,
        request: tonic::Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<tonic::Response<Self::ProduceStreamStream>, Status> {
        let (sender, answers) = tokio::sync::mpsc::channel(1);
        let (mut requests, naive) = (request.into_inner(), self.clone());
        tokio::spawn(async move {
            while let Some(asked) = requests.next().await {
                let stored = async {
                    let Some(append) = asked?.append else { return Ok(None) };
                    if !append.request_id.is_empty() {
                        return Err(Refusal::argument("append.request_id", "not in a stream").into());
                    }
                    Ok(Some(naive.store(&append).await?))
                };
                let stored: Result<_, Status> = stored.await;
                let failed = stored.is_err();
                let event = |stored| v1::ProduceStreamResponse {
                    event: Some(v1::produce_stream_response::Event::Stored(stored)),
                };
                let Some(answer) = stored.transpose() else { continue };
                if sender.send(answer.map(event)).await.is_err() || failed {
                    break;
                }
            }
        });
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// An ack as a message.
fn produced(produced: &broker::Produced) -> v1::ProduceResponse {
    let appends = produced.appends.iter().map(|append| v1::PartitionAppend {
        topic: append.topic.as_ref().into(),
        topic_id: convert::id(append.topic_id),
        partition: append.partition,
        base_offset: append.base_offset,
        record_count: append.record_count,
        leader_epoch: append.leader_epoch,
        append_time_ms: append.append_time_ms,
        durability: convert::durability(append.level).into(),
        duplicate: append.duplicate,
        record_indexes: append.record_indexes.clone(),
    });
    v1::ProduceResponse { appends: appends.collect(), duplicate: produced.duplicate }
}

/// A slice as a message: every batch decoded.
fn slice(slice: &broker::Slice) -> v1::LogSlice {
    let batches =
        v1::LogSlice::decode(slice.batches.concat().as_slice()).expect("batches are field 1").batches;
    v1::LogSlice {
        batches,
        topic: slice.topic.as_ref().into(),
        topic_id: convert::id(slice.topic_id),
        partition: slice.partition,
        high_watermark: slice.high_watermark,
        log_start_offset: slice.log_start_offset,
        next_offset: slice.next_offset,
        start_offset: slice.start_offset,
        leader_epoch: slice.leader_epoch,
        gaps: slice.gaps.iter().map(convert::gap).collect(),
        ..Default::default() // what only files have
    }
}

#[tonic::async_trait]
impl ConsumerService for Naive {
    type SubscribeStream = Answers<v1::SubscribeResponse>;

    async fn fetch(
        &self,
        request: tonic::Request<v1::FetchRequest>,
    ) -> Result<tonic::Response<v1::FetchResponse>, Status> {
        let fetched = self.0.fetch(convert::fetch(request.into_inner(), None)?).await?;
        Ok(tonic::Response::new(v1::FetchResponse {
            slices: fetched.slices.iter().map(slice).collect(),
            errors: fetched.errors.iter().map(convert::partition_error).collect(),
        }))
    }

    async fn subscribe(
        &self,
        request: tonic::Request<v1::SubscribeRequest>,
    ) -> Result<tonic::Response<Self::SubscribeStream>, Status> {
        let mut subscription = self.0.subscribe(convert::subscribe(request.into_inner())?).await?;
        let (sender, events) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(event) = subscription.next().await {
                let event = match event {
                    SubEvent::Slice(found) => Event::Slice(slice(&found)),
                    SubEvent::CaughtUp { topic, topic_id, partition, next_offset, leader_epoch } => {
                        Event::CaughtUp(v1::CaughtUp {
                            topic: topic.as_ref().into(),
                            topic_id: convert::id(topic_id),
                            partition,
                            next_offset,
                            leader_epoch,
                        })
                    }
                    SubEvent::PartitionError(failure) => {
                        Event::PartitionError(convert::partition_error(&failure))
                    }
                    SubEvent::Heartbeat { .. } | SubEvent::Drain { .. } => break,
                };
                if sender.send(Ok(v1::SubscribeResponse { event: Some(event) })).await.is_err() {
                    break;
                }
            }
        });
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(events))))
    }

    type ConsumeStream = Answers<v1::ConsumeResponse>;

    /// What it says depends on time and on who else is there: it is tested for itself.
    async fn consume(
        &self,
        _: tonic::Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<tonic::Response<Self::ConsumeStream>, Status> {
        Err(Status::unimplemented("no twin"))
    }
}

/// Behind the front, generated code for the hot calls too.
#[derive(Clone)]
pub(super) struct Twin(Routes);

impl Twin {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        let naive = Naive(broker);
        let producer = ProducerServiceServer::new(naive.clone()).max_decoding_message_size(usize::MAX);
        Self(Routes::new(producer).add_service(ConsumerServiceServer::new(naive)).prepare())
    }
}

impl<B> Service<Call<B>> for Twin
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut call: Call<B>) -> Answering {
        let limit = match Hot::of(call.request.uri().path()) {
            Some(Hot::Produce | Hot::ProduceStream | Hot::AppendAndCommit) => {
                annals_wire::limits::MAX_REQUEST_BYTES
            }
            Some(Hot::OpenProducer | Hot::Fetch | Hot::Subscribe | Hot::Consume) | None => MAX_SMALL_REQUEST,
        };
        call.timeout = None; // streams have none, and no call here comes near its own
        Box::pin(generated(self.0.clone(), call, limit))
    }
}
