//! A server that does what a test tells it, over a real connection.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use annals_client::v1::{
    self,
    consumer_service_server::{ConsumerService, ConsumerServiceServer},
    offset_service_server::{OffsetService, OffsetServiceServer},
    producer_service_server::{ProducerService, ProducerServiceServer},
    server_service_server::{ServerService, ServerServiceServer},
    topic_service_server::{TopicService, TopicServiceServer},
};
use annals_wire::murmur2;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

type Reply<T> = Result<Response<T>, Status>;
type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What happens to the next request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Nothing in particular.
    Go,
    /// Refused with this reason; nothing is stored.
    Refuse(Code, &'static str),
    /// The stream breaks before anything is stored.
    Break,
    /// It is stored, and the stream breaks before the answer.
    StoreAndBreak,
    /// The server says that it goes away, then stores.
    DrainAndStore,
    /// Nothing ever comes back.
    Silence,
}

/// What the server has seen and what it is to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// 0 = the topic does not exist yet.
    partitions: u32,
    script: VecDeque<Step>,
    log: BTreeMap<u32, Vec<v1::Record>>,
    streams: usize,
    requests: Vec<v1::ProduceRequest>,
    answered: BTreeMap<String, v1::ProduceResponse>,
    subscriptions: Vec<v1::SubscribeRequest>,
    events: VecDeque<VecDeque<Result<v1::SubscribeResponse, Status>>>,
    commits: Vec<v1::CommitOffsetsRequest>,
    producers: i64,
    idempotent: bool,
    /// By producer, partition and sequence.
    sequences: BTreeMap<(i64, u32, u32), v1::ProduceResponse>,
}

impl Fake {
    pub(crate) fn new(partitions: u32, script: impl IntoIterator<Item = Step>) -> Self {
        let fake = Self::default();
        fake.with(|inner| {
            inner.partitions = partitions;
            inner.script = script.into_iter().collect();
        });
        fake
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap())
    }

    /// Serves on a free port.
    pub(crate) async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(self.router().serve_with_incoming(incoming));
        address.to_string()
    }

    /// Serves on a socket in the file system.
    pub(crate) fn serve_at(&self, path: &std::path::Path) {
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        tokio::spawn(self.router().serve_with_incoming(incoming));
    }

    fn router(&self) -> tonic::transport::server::Router {
        Server::builder()
            .add_service(ProducerServiceServer::new(self.clone()))
            .add_service(ConsumerServiceServer::new(self.clone()))
            .add_service(OffsetServiceServer::new(self.clone()))
            .add_service(TopicServiceServer::new(self.clone()))
            .add_service(ServerServiceServer::new(self.clone()))
    }

    /// Values stored in a partition.
    pub(crate) fn values(&self, partition: u32) -> Vec<String> {
        self.with(|inner| {
            let records = inner.log.get(&partition).cloned().unwrap_or_default();
            records.iter().map(|record| String::from_utf8(record.value().to_vec()).unwrap()).collect()
        })
    }

    pub(crate) fn stored(&self) -> usize {
        self.with(|inner| inner.log.values().map(Vec::len).sum())
    }

    pub(crate) fn streams(&self) -> usize {
        self.with(|inner| inner.streams)
    }

    pub(crate) fn producers(&self) -> i64 {
        self.with(|inner| inner.producers)
    }

    pub(crate) fn requests(&self) -> Vec<v1::ProduceRequest> {
        self.with(|inner| inner.requests.clone())
    }

    pub(crate) fn subscriptions(&self) -> Vec<v1::SubscribeRequest> {
        self.with(|inner| inner.subscriptions.clone())
    }

    pub(crate) fn commits(&self) -> Vec<v1::CommitOffsetsRequest> {
        self.with(|inner| inner.commits.clone())
    }

    /// What the next subscription will see; it stays open behind it, unless it ends in an error.
    pub(crate) fn will_say(&self, events: impl IntoIterator<Item = Result<v1::SubscribeResponse, Status>>) {
        self.with(|inner| inner.events.push_back(events.into_iter().collect()));
    }

    pub(crate) fn grow(&self, partitions: u32) {
        self.with(|inner| inner.partitions = partitions);
    }

    /// Says that it knows sequences, and does.
    pub(crate) fn idempotent(self) -> Self {
        self.with(|inner| inner.idempotent = true);
        self
    }

    fn next_step(&self) -> Option<Step> {
        self.with(|inner| inner.script.pop_front())
    }

    fn store(&self, request: &v1::ProduceRequest) -> v1::ProduceResponse {
        self.with(|inner| {
            if let Some(answer) = inner.answered.get(&request.request_id) {
                return v1::ProduceResponse { duplicate: true, ..answer.clone() };
            }
            if let Some(answer) = inner.again(request) {
                return answer;
            }
            inner.partitions = inner.partitions.max(8);
            let mut spread = BTreeMap::<u32, Vec<u32>>::new();
            for (index, record) in (0..).zip(&request.records) {
                let of_key =
                    record.key.as_ref().map_or(0, |key| murmur2::partition_of(key, inner.partitions));
                spread.entry(request.partition.unwrap_or(of_key)).or_default().push(index);
            }
            let whole = spread.len() == 1;
            let mut answer = v1::ProduceResponse::default();
            for (partition, indexes) in spread {
                let log = inner.log.entry(partition).or_default();
                answer.appends.push(v1::PartitionAppend {
                    topic: request.topic.clone(),
                    partition,
                    base_offset: i64::try_from(log.len()).unwrap(),
                    record_count: u32::try_from(indexes.len()).unwrap(),
                    durability: v1::Durability::Fsync.into(),
                    record_indexes: if whole { Vec::new() } else { indexes.clone() },
                    ..Default::default()
                });
                log.extend(indexes.iter().map(|index| request.records[*index as usize].clone()));
            }
            inner.remember(request, &answer);
            if !request.request_id.is_empty() {
                inner.answered.insert(request.request_id.clone(), answer.clone());
            }
            answer
        })
    }
}

impl Inner {
    /// The answer to what a producer had stored before.
    fn again(&self, request: &v1::ProduceRequest) -> Option<v1::ProduceResponse> {
        let sequence = request.producer?;
        let key = (sequence.producer_id, request.partition?, sequence.base_sequence);
        let mut answer = self.sequences.get(&key)?.clone();
        answer.appends.iter_mut().for_each(|append| append.duplicate = true);
        Some(answer)
    }

    fn remember(&mut self, request: &v1::ProduceRequest, answer: &v1::ProduceResponse) {
        let (Some(sequence), Some(partition)) = (request.producer, request.partition) else { return };
        let of = |(producer, of, _): &(i64, u32, u32)| (*producer, *of) == (sequence.producer_id, partition);
        let stored = self.sequences.iter().filter(|(key, _)| of(key));
        let next: u32 = stored.map(|(_, answer)| answer.appends[0].record_count).sum();
        assert_eq!(sequence.base_sequence, next, "sequences are without holes");
        self.sequences.insert((sequence.producer_id, partition, next), answer.clone());
    }
}

pub(crate) fn refusal(code: Code, reason: &str) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, "annals", []);
    if code == Code::ResourceExhausted {
        details.set_retry_info(Some(Duration::from_millis(5)));
    }
    Status::with_error_details(code, format!("refused: {reason}"), details)
}

#[tonic::async_trait]
impl ProducerService for Fake {
    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Reply<v1::ProduceResponse> {
        let request = request.into_inner();
        self.with(|inner| inner.requests.push(request.clone()));
        match self.next_step() {
            Some(Step::Refuse(code, reason)) => Err(refusal(code, reason)),
            Some(Step::Break) => Err(Status::unavailable("broken")),
            Some(Step::StoreAndBreak) => {
                self.store(&request);
                Err(Status::unavailable("broken"))
            }
            _ => Ok(Response::new(self.store(&request))),
        }
    }

    async fn open_producer(&self, _: Request<v1::OpenProducerRequest>) -> Reply<v1::OpenProducerResponse> {
        let producer_id = self.with(|inner| {
            inner.producers += 1;
            inner.producers
        });
        let opened = v1::OpenProducerResponse {
            producer_id,
            producer_epoch: 1,
            positions: vec![],
            window_batches: 64,
        };
        Ok(Response::new(opened))
    }

    async fn append_and_commit(
        &self,
        request: Request<v1::AppendAndCommitRequest>,
    ) -> Reply<v1::AppendAndCommitResponse> {
        let request = request.into_inner();
        let step = self.next_step();
        if let Some(Step::Refuse(code, reason)) = step {
            return Err(refusal(code, reason));
        }
        let mut answer = v1::AppendAndCommitResponse::default();
        for (index, output) in request.outputs.into_iter().enumerate() {
            let stored = self.store(&v1::ProduceRequest {
                topic: output.topic,
                partition: output.partition,
                records: output.records,
                request_id: format!("{}-{index}", request.request_id),
                ..Default::default()
            });
            answer.duplicate |= stored.duplicate;
            answer.appends.extend(stored.appends);
        }
        if let Some(Step::StoreAndBreak) = step {
            return Err(Status::unavailable("broken"));
        }
        Ok(Response::new(answer))
    }

    type ProduceStreamStream = Out<v1::ProduceStreamResponse>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Reply<Self::ProduceStreamStream> {
        use v1::produce_stream_response::Event;
        let fake = self.clone();
        let mut requests = request.into_inner();
        self.with(|inner| inner.streams += 1);
        let (sender, receiver) = mpsc::channel(16);
        let say = |event| Ok(v1::ProduceStreamResponse { event: Some(event) });
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let request = request.append.unwrap_or_default();
                fake.with(|inner| inner.requests.push(request.clone()));
                let answer = match fake.next_step() {
                    None | Some(Step::Go) => say(Event::Stored(fake.store(&request))),
                    Some(Step::Refuse(code, reason)) => Err(refusal(code, reason)),
                    Some(Step::Break) => Err(Status::unavailable("broken")),
                    Some(Step::StoreAndBreak) => {
                        fake.store(&request);
                        Err(Status::unavailable("broken"))
                    }
                    Some(Step::DrainAndStore) => {
                        let drain = say(Event::Drain(v1::Drain { deadline_ms: 1000 }));
                        sender.send(drain).await.unwrap();
                        say(Event::Stored(fake.store(&request)))
                    }
                    Some(Step::Silence) => std::future::pending().await,
                };
                let last = answer.is_err();
                if sender.send(answer).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl ConsumerService for Fake {
    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Reply<v1::FetchResponse> {
        let errors = request.into_inner().positions.into_iter().map(|position| v1::PartitionError {
            topic: position.topic,
            partition: position.partition.unwrap_or_default(),
            code: Code::OutOfRange.into(),
            reason: "OFFSET_TRUNCATED".to_owned(),
            message: "gone".to_owned(),
            metadata: BTreeMap::from([("earliest".to_owned(), "7".to_owned())]),
        });
        Ok(Response::new(v1::FetchResponse { slices: Vec::new(), errors: errors.collect() }))
    }

    type SubscribeStream = Out<v1::SubscribeResponse>;

    async fn subscribe(&self, request: Request<v1::SubscribeRequest>) -> Reply<Self::SubscribeStream> {
        let events = self.with(|inner| {
            inner.subscriptions.push(request.into_inner());
            inner.events.pop_front().unwrap_or_default()
        });
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            for event in events {
                let last = event.is_err();
                if sender.send(event).await.is_err() || last {
                    return;
                }
            }
            sender.closed().await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type ConsumeStream = Out<v1::ConsumeResponse>;

    async fn consume(&self, _: Request<Streaming<v1::ConsumeRequest>>) -> Reply<Self::ConsumeStream> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tonic::async_trait]
impl OffsetService for Fake {
    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Reply<v1::CommitOffsetsResponse> {
        self.with(|inner| inner.commits.push(request.into_inner()));
        match self.next_step() {
            Some(Step::Refuse(code, reason)) => Err(refusal(code, reason)),
            Some(_) => Err(Status::unavailable("broken")),
            None => Ok(Response::new(v1::CommitOffsetsResponse {})),
        }
    }

    async fn get_offsets(&self, _: Request<v1::GetOffsetsRequest>) -> Reply<v1::GetOffsetsResponse> {
        Ok(Response::new(v1::GetOffsetsResponse::default()))
    }

    async fn list_offsets(&self, _: Request<v1::ListOffsetsRequest>) -> Reply<v1::ListOffsetsResponse> {
        let partitions = self.with(|inner| inner.partitions);
        let offsets =
            (0..partitions).map(|partition| v1::PartitionOffsets { partition, ..Default::default() });
        Ok(Response::new(v1::ListOffsetsResponse { offsets: offsets.collect(), ..Default::default() }))
    }

    async fn reset_offsets(&self, _: Request<v1::ResetOffsetsRequest>) -> Reply<v1::ResetOffsetsResponse> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tonic::async_trait]
impl TopicService for Fake {
    async fn create_topic(&self, _: Request<v1::CreateTopicRequest>) -> Reply<v1::CreateTopicResponse> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get_topic(&self, request: Request<v1::GetTopicRequest>) -> Reply<v1::GetTopicResponse> {
        let partitions = self.with(|inner| inner.partitions);
        if partitions == 0 {
            return Err(refusal(Code::NotFound, "TOPIC_NOT_FOUND"));
        }
        let infos = (0..partitions).map(|partition| v1::PartitionInfo { partition, ..Default::default() });
        let topic =
            v1::Topic { name: request.into_inner().topic, partitions: infos.collect(), ..Default::default() };
        Ok(Response::new(v1::GetTopicResponse { topic: Some(topic) }))
    }

    async fn list_topics(&self, request: Request<v1::ListTopicsRequest>) -> Reply<v1::ListTopicsResponse> {
        let page: u32 = request.into_inner().page_token.parse().unwrap_or_default();
        let topics = vec![v1::Topic { name: format!("t{page}"), ..Default::default() }];
        let next_page_token = if page < 2 { (page + 1).to_string() } else { String::new() };
        Ok(Response::new(v1::ListTopicsResponse { topics, next_page_token }))
    }

    async fn update_topic(&self, _: Request<v1::UpdateTopicRequest>) -> Reply<v1::UpdateTopicResponse> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn delete_topic(&self, _: Request<v1::DeleteTopicRequest>) -> Reply<v1::DeleteTopicResponse> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tonic::async_trait]
impl ServerService for Fake {
    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Reply<v1::GetServerInfoResponse> {
        let limits = v1::Limits {
            max_record_bytes: 1 << 20,
            max_batch_bytes: 1 << 20,
            max_request_bytes: 16 << 20,
            ..Default::default()
        };
        let idempotent = self.with(|inner| inner.idempotent);
        let features = idempotent.then(|| "idempotent_producer".to_owned()).into_iter().collect();
        let info = v1::GetServerInfoResponse { limits: Some(limits), features, ..Default::default() };
        Ok(Response::new(info))
    }

    async fn get_metadata(&self, _: Request<v1::GetMetadataRequest>) -> Reply<v1::GetMetadataResponse> {
        Ok(Response::new(v1::GetMetadataResponse::default()))
    }
}
