//! What is asked: calls that are drawn, good and bad, and what is done to their bytes before they are sent.

use std::{collections::VecDeque, convert::Infallible, fmt::Debug, pin::Pin, task};

use annals_wire::v1::{self, fetch_position::Start};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;
use tonic::Status;
use tower::Service;

use super::{super::Hot, FETCH, OPEN, PRODUCE, Reading, STEP, STREAM, SUBSCRIBE};
use crate::grpc::answer::Answer;

/// A request's body: frames that are there.
pub(super) struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        task::Poll::Ready(self.0.pop_front().map(|frame| Ok(Frame::data(frame))))
    }
}

/// What is done to a body before it is sent.
#[derive(Clone, Debug)]
pub(super) enum Harm {
    None,
    /// Only so much of it, per mille.
    Cut(u16),
    /// A bit, at so much of it, per mille.
    Flip(u16, u8),
    /// A byte in front of the last message.
    Insert(u16, u8),
    /// The flag of the first message.
    Flag(u8),
    /// Everything again.
    Again,
    /// No body.
    Nothing,
    /// A length that no call takes, and nothing behind it.
    Oversize(u32),
}

/// A call.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) path: &'static str,
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) harm: Harm,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// Sizes of the frames, again and again.
    pub(super) frames: Vec<usize>,
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat()
}

impl Asked {
    fn body(&self) -> Vec<u8> {
        let mut body: Vec<u8> = self.messages.iter().flat_map(|message| framed(message)).collect();
        let at = |per_mille: u16, length: usize| {
            (length * usize::from(per_mille) / 1000).min(length.saturating_sub(1))
        };
        match self.harm {
            Harm::None => {}
            Harm::Cut(share) => body.truncate(at(share, body.len())),
            Harm::Flip(share, bit) => {
                let index = at(share, body.len());
                if let Some(byte) = body.get_mut(index) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Harm::Insert(share, byte) => body.insert(at(share, body.len()), byte),
            Harm::Flag(flag) => {
                if let Some(first) = body.first_mut() {
                    *first = flag;
                }
            }
            Harm::Again => body.extend_from_within(..),
            Harm::Nothing => body.clear(),
            Harm::Oversize(length) => {
                body.clear();
                body.push(0);
                body.extend(((16 << 20) + 1 + length % (1 << 30)).to_be_bytes());
            }
        }
        body
    }

    /// The body in frames of the sizes that were drawn.
    pub(super) fn cut(&self) -> VecDeque<Bytes> {
        let mut body = Bytes::from(self.body());
        let mut frames = VecDeque::new();
        for size in self.frames.iter().cycle() {
            if body.is_empty() {
                break;
            }
            frames.push_back(body.split_to((*size).min(body.len())));
        }
        frames
    }

    /// The body in frames of one message each.
    pub(super) fn apart(&self) -> VecDeque<Bytes> {
        let mut body = Bytes::from(self.body());
        let mut frames = VecDeque::new();
        while let Some(([_, length @ ..], _)) = body.split_first_chunk::<5>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
            frames.push_back(body.split_to(length.saturating_add(5).min(body.len())));
        }
        frames.extend((!body.is_empty()).then_some(body));
        frames
    }

    pub(super) async fn send<S>(&self, mut service: S, frames: VecDeque<Bytes>) -> Reading
    where
        S: Service<Request<Frames>, Response = Response<Answer>, Error = Infallible>,
    {
        let mut request = Request::post(self.path).header("content-type", "application/grpc");
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        let response = service.call(request.body(Frames(frames)).unwrap()).await.unwrap();
        let status = Status::from_header_map(response.headers());
        Reading::new(response.into_body(), status)
    }

    /// Whether the bytes that are sent are what a stock encoder writes of what a stock decoder reads in them.
    pub(super) fn canonical(&self) -> bool {
        fn same<M: Message + Default>(bytes: &[u8]) -> bool {
            M::decode(bytes).is_ok_and(|message| message.encode_to_vec() == bytes)
        }
        let body = self.body();
        let (mut rest, mut count, mut all) = (body.as_slice(), 0, true);
        while let Some((prefix, behind)) = rest.split_first_chunk::<5>() {
            let length =
                usize::try_from(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]])).unwrap();
            let Some((message, behind)) = behind.split_at_checked(length) else {
                // tonic takes a message of which nothing but the prefix came for the end of a stream.
                return false;
            };
            all &= match Hot::of(self.path) {
                Some(Hot::OpenProducer) => same::<v1::OpenProducerRequest>(message),
                Some(Hot::Produce) => same::<v1::ProduceRequest>(message),
                Some(Hot::ProduceStream) => same::<v1::ProduceStreamRequest>(message),
                Some(Hot::AppendAndCommit) => same::<v1::AppendAndCommitRequest>(message),
                Some(Hot::Fetch) => same::<v1::FetchRequest>(message),
                Some(Hot::Subscribe) => same::<v1::SubscribeRequest>(message),
                Some(Hot::Consume) => same::<v1::ConsumeRequest>(message),
                None => true,
            };
            (rest, count) = (behind, count + 1);
        }
        all && rest.is_empty() && (self.path == STREAM || count < 2)
    }

    pub(super) fn show(&self, message: &[u8]) -> String {
        fn shown<M: Message + Default + Debug>(message: &[u8]) -> String {
            format!("{:?}", M::decode(message).expect("an answer decodes"))
        }
        match Hot::of(self.path) {
            Some(Hot::OpenProducer) => shown::<v1::OpenProducerResponse>(message),
            Some(Hot::Produce) => shown::<v1::ProduceResponse>(message),
            Some(Hot::ProduceStream) => shown::<v1::ProduceStreamResponse>(message),
            Some(Hot::AppendAndCommit) => shown::<v1::AppendAndCommitResponse>(message),
            Some(Hot::Fetch) => shown::<v1::FetchResponse>(message),
            Some(Hot::Subscribe) => shown::<v1::SubscribeResponse>(message),
            Some(Hot::Consume) => shown::<v1::ConsumeResponse>(message),
            None => panic!("{} has no answer", self.path),
        }
    }
}

fn a_topic() -> impl Strategy<Value = String> {
    prop_oneof![24 => Just("t"), 10 => Just("u"), 1 => Just("no/name"), 1 => Just(""), 1 => Just("__x"), 1 => Just("nowhere")]
        .prop_map(str::to_owned)
}

/// At least one, but for a few times.
fn some<S: Strategy>(strategy: S, below: usize) -> impl Strategy<Value = Vec<S::Value>>
where
    S::Value: Clone,
{
    (vec(strategy, 1..below), prop::bool::weighted(0.97))
        .prop_map(|(all, kept)| if kept { all } else { Vec::new() })
}

/// Mostly none.
fn rarely<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    option::weighted(0.02, strategy)
}

fn a_record() -> impl Strategy<Value = v1::Record> {
    let value = prop_oneof![
        20 => vec(any::<u8>(), 0..40),
        2 => (4000_usize..9000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
        1 => (700_000_usize..1_100_000).prop_map(|length| vec![b'x'; length]),
    ];
    let header = ("[a-z]{0,4}", option::of(vec(any::<u8>(), 0..4)))
        .prop_map(|(name, value)| v1::Header { key: name, value: value.map(Bytes::from) });
    let times = (rarely(-5_i64..2_000_000_000_000), rarely(any::<i64>()), rarely(any::<i64>()));
    (option::of("[a-e]{0,2}"), option::of(value), vec(header, 0..3), times, rarely(0_u32..3)).prop_map(
        |(key, value, headers, (timestamp_ms, deliver_at_ms, expires_at_ms), offset_delta)| v1::Record {
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers,
            timestamp_ms,
            offset_delta,
            deliver_at_ms,
            expires_at_ms,
        },
    )
}

fn a_produce() -> impl Strategy<Value = v1::ProduceRequest> {
    let odd = (rarely(-1_i64..9), rarely(any::<u32>()), rarely(0_i32..4), rarely(vec(any::<u8>(), 1..20)));
    let id = prop_oneof![12 => Just(String::new()), 2 => "[rs]", 1 => "r{129}"];
    let level = prop_oneof![12 => 0..4_i32, 1 => any::<i32>()];
    let producer = (1_i64..3, 0_u32..3, 0_u32..4).prop_map(|(producer_id, producer_epoch, base_sequence)| {
        v1::ProducerSequence { producer_id, producer_epoch, base_sequence }
    });
    let ids = (id, option::weighted(0.2, producer));
    (a_topic(), option::of(0_u32..9), level, some(a_record(), 5), odd, ids).prop_map(
        |(
            topic,
            partition,
            durability,
            records,
            (expected, crc, codec, compressed),
            (request_id, producer),
        )| {
            let request_id = if producer.is_some() { String::new() } else { request_id };
            v1::ProduceRequest {
                topic,
                partition,
                durability,
                expected_next_offset: expected,
                producer,
                records_crc32: crc,
                codec: codec.unwrap_or_default(),
                request_id,
                compressed: compressed.map(Bytes::from).unwrap_or_default(),
                records,
            }
        },
    )
}

fn a_step() -> impl Strategy<Value = v1::AppendAndCommitRequest> {
    let output = (a_topic(), option::of(0_u32..9), rarely(any::<u32>()), some(a_record(), 4)).prop_map(
        |(topic, partition, records_crc32, records)| v1::Output { topic, partition, records_crc32, records },
    );
    let offset = (a_topic(), 0_u32..9, 0_i64..3, option::weighted(0.97, 0_i64..2)).prop_map(
        |(topic, partition, next_offset, expected_offset)| v1::CommitPosition {
            topic,
            partition,
            next_offset,
            expected_offset,
            ..Default::default()
        },
    );
    let id = prop_oneof![12 => "[a-z]{6}", 3 => "[rs]", 1 => Just(String::new())];
    (id, prop_oneof![9 => "[gh]", 1 => Just(String::new())], vec(offset, 0..3), vec(output, 0..4)).prop_map(
        |(request_id, group, offsets, outputs)| {
            let group =
                if offsets.is_empty() && !request_id.starts_with('z') { String::new() } else { group };
            v1::AppendAndCommitRequest { request_id, group, offsets, outputs, ..Default::default() }
        },
    )
}

fn a_position() -> impl Strategy<Value = v1::FetchPosition> {
    let start = prop_oneof![
        6 => (0_i64..12).prop_map(Start::Offset),
        1 => any::<i64>().prop_map(Start::Offset),
        1 => (0_i64..2_000_000_000_000).prop_map(Start::TimestampMs),
        2 => (0_i32..4).prop_map(Start::Anchor),
        2 => (0_u32..9).prop_map(Start::LastRecords),
        1 => "[gh]".prop_map(Start::CommittedBy),
    ];
    (a_topic(), option::weighted(0.95, 0_u32..9), option::of(start), rarely(0_u32..4)).prop_map(
        |(topic, partition, start, last_epoch)| v1::FetchPosition { topic, partition, start, last_epoch },
    )
}

fn a_filter() -> impl Strategy<Value = v1::Filter> {
    let key = option::of("[ab]?".prop_map(Bytes::from));
    let prefix = option::weighted(0.3, "[ab]?".prop_map(Bytes::from));
    (key, prefix, vec("[a-c]?", 0..2)).prop_map(|(key, key_prefix, event_types)| v1::Filter {
        key,
        key_prefix,
        headers: vec![],
        event_types,
    })
}

fn a_fetch() -> impl Strategy<Value = v1::FetchRequest> {
    let sizes = (0_u32..3, prop_oneof![Just(0_u32), 1_u32..20_000]);
    (some(a_position(), 4), sizes, vec(0_i32..4, 0..3), any::<bool>(), option::weighted(0.2, a_filter()))
        .prop_map(|(positions, (min_bytes, max_bytes), accept_codecs, skip_damaged, filter)| {
            v1::FetchRequest {
                positions,
                max_wait_ms: 0, // by these brokers' clock no time passes
                min_bytes,
                max_bytes,
                accept_codecs,
                skip_damaged,
                filter,
            }
        })
}

fn a_call() -> impl Strategy<Value = (&'static str, Vec<Vec<u8>>)> {
    let subscribe = (some(a_position(), 3), prop_oneof![Just(0_u32), 1_u32..20_000]).prop_map(
        |(positions, max_bytes)| v1::SubscribeRequest { positions, max_bytes, ..Default::default() },
    );
    let streamed = option::weighted(0.9, a_produce()).prop_map(|append| {
        // An id would end every other stream at once.
        let append = append.map(|append| v1::ProduceRequest {
            request_id: append.request_id.get(128..).unwrap_or_default().into(),
            ..append
        });
        v1::ProduceStreamRequest { append }.encode_to_vec()
    });
    prop_oneof![
        6 => a_produce().prop_map(|asked| (PRODUCE, vec![asked.encode_to_vec()])),
        3 => vec(streamed, 0..6).prop_map(|asked| (STREAM, asked)),
        1 => "[pq]?".prop_map(|name| (OPEN, vec![v1::OpenProducerRequest { name }.encode_to_vec()])),
        3 => a_step().prop_map(|asked| (STEP, vec![asked.encode_to_vec()])),
        6 => a_fetch().prop_map(|asked| (FETCH, vec![asked.encode_to_vec()])),
        1 => subscribe.prop_map(|asked| (SUBSCRIBE, vec![asked.encode_to_vec()])),
    ]
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        30 => Just(Harm::None),
        1 => (0_u16..1000).prop_map(Harm::Cut),
        3 => (0_u16..1000, any::<u8>()).prop_map(|(share, bit)| Harm::Flip(share, bit)),
        1 => (0_u16..1000, any::<u8>()).prop_map(|(share, byte)| Harm::Insert(share, byte)),
        1 => any::<u8>().prop_map(Harm::Flag),
        1 => Just(Harm::Again),
        1 => Just(Harm::Nothing),
        1 => any::<u32>().prop_map(Harm::Oversize),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    prop_oneof![
        24 => Just(vec![]),
        2 => Just(vec![("grpc-timeout", "1H"), ("x-request-id", "mine")]),
        1 => Just(vec![("grpc-timeout", "soon")]),
        1 => Just(vec![("grpc-encoding", "gzip")]),
        1 => Just(vec![("grpc-encoding", "identity")]),
    ]
}

pub(super) fn asked() -> impl Strategy<Value = Asked> {
    let frame = prop_oneof![1_usize..9, 1_usize..300, 16_000_usize..17_000];
    (a_call(), harm(), headers(), vec(frame, 1..4))
        .prop_map(|((path, messages), harm, headers, frames)| Asked { path, messages, harm, headers, frames })
}
