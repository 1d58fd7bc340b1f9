//! What the door reads, as functions over bytes; see [`crate::fuzz`].

#![allow(clippy::indexing_slicing, reason = "a panic is its verdict")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt::Debug,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use annals_client::Error;
use annals_wire::v1;
use bytes::Bytes;
use http_body::{Body, Frame};
use prost::Message;
use tonic::{Code, Status};

use super::{
    convert, front, membership,
    raw::{
        budget::Budget,
        message::{Messages, PREFIX},
    },
    topics::masked,
};
use crate::broker::{TopicDefaults, TopicSettings};

/// The request that the bytes are, if they are one of this kind.
fn request<M: Message + Default + PartialEq + Debug>(input: &[u8], taken: &mut bool) -> Option<M> {
    let message = M::decode(input).ok()?;
    *taken = true;
    let bytes = message.encode_to_vec();
    assert_eq!(M::decode(&bytes[..]).expect("it was just encoded"), message);
    Some(message)
}

/// Every message that goes through a generated decoder: the bytes are tried as each of them, and given to whatever the
/// door makes of it before the broker sees it.
pub(crate) fn requests(input: &[u8]) -> bool {
    let (taken, defaults) = (&mut false, TopicDefaults::default());
    if let Some(asked) = request::<v1::FetchRequest>(input, taken) {
        let (count, wait) = (asked.positions.len(), Duration::from_millis(asked.max_wait_ms.into()));
        if let Ok(fetch) = convert::fetch(asked, Some(Duration::from_millis(300))) {
            assert!(fetch.max_wait <= wait && fetch.max_wait < Duration::from_millis(300));
            assert_eq!(fetch.positions.len(), count);
        }
    }
    if let Some(asked) = request::<v1::SubscribeRequest>(input, taken) {
        let (count, plain) = (asked.positions.len(), asked.filter.is_none());
        let taken = convert::subscribe(asked).map(|asked| asked.positions.len());
        assert!(taken.map_or(count > 0 || !plain, |taken| taken == count));
    }
    if let Some(asked) = request::<v1::CreateTopicRequest>(input, taken) {
        let config = asked.config.unwrap_or_default();
        if let Ok(settings) = convert::settings(&config) {
            assert_eq!(settings.partitions.unwrap_or(0), config.partitions);
        }
    }
    if let Some(asked) = request::<v1::UpdateTopicRequest>(input, taken) {
        let paths = asked.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let values = convert::settings(&asked.config.unwrap_or_default());
        if let Ok(Ok(changes)) = values.map(|values| masked(values, &paths, defaults)) {
            assert!(paths.len() != 1 || changes != TopicSettings::default(), "a named setting changes");
        }
    }
    if let Some(asked) = request::<v1::DeleteTopicRequest>(input, taken) {
        let id = convert::topic_id("topic_id", &asked.topic_id);
        assert_eq!(id.is_ok(), matches!(asked.topic_id.len(), 0 | 16));
    }
    if let Some(asked) = request::<v1::CommitOffsetsRequest>(input, taken) {
        for (index, position) in asked.offsets.into_iter().enumerate() {
            let _refused_or_not = convert::commit_position(index, position);
        }
    }
    if let Some(asked) = request::<v1::ConsumeRequest>(input, taken)
        && let Some(v1::consume_request::Command::Join(join)) = asked.command
    {
        let _refused_or_not = membership::join(join, "peer".into());
    }
    if let Some(asked) = request::<v1::UpdateGroupRequest>(input, taken) {
        let paths = asked.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let values = membership::settings(&asked.config.unwrap_or_default());
        let _refused_or_not = values.map(|values| membership::masked(values, &paths));
    }
    request::<v1::CreateGroupRequest>(input, taken);
    request::<v1::GetTopicRequest>(input, taken);
    request::<v1::ListTopicsRequest>(input, taken);
    request::<v1::GetOffsetsRequest>(input, taken);
    request::<v1::ListOffsetsRequest>(input, taken);
    request::<v1::GetGroupRequest>(input, taken);
    request::<v1::ListGroupsRequest>(input, taken);
    request::<v1::DeleteGroupRequest>(input, taken);
    request::<v1::GetMetadataRequest>(input, taken);
    request::<v1::GetServerInfoRequest>(input, taken);
    *taken
}

/// A body of these frames.
struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|frame| Ok(Frame::data(frame))))
    }
}

/// Largest message here.
const LIMIT: usize = 4096;

/// The messages in a body, and whether it ended as it should.
fn messages(frames: Vec<Bytes>) -> (Vec<Bytes>, bool) {
    let budget = Budget::new(1 << 20);
    let mut messages = Messages::new(Frames(frames.into()), LIMIT, budget.clone());
    let context = &mut Context::from_waker(Waker::noop());
    let mut found = Vec::new();
    loop {
        match messages.poll_next(context) {
            Poll::Ready(Ok(Some(message))) => {
                assert!(message.held.bytes() >= message.chunks.iter().map(Bytes::len).sum());
                found.push(message.into_bytes());
            }
            Poll::Ready(end) => {
                let after = messages.poll_next(context);
                assert!(matches!(after, Poll::Ready(Ok(None))), "after the end there is nothing");
                drop(messages);
                assert_eq!(budget.free_bytes(), 1 << 20, "all room is given back");
                return (found, end.is_ok());
            }
            Poll::Pending => panic!("every frame is there, and so is the room"),
        }
    }
}

/// gRPC messages out of a body, cut anywhere.
pub(crate) fn framing(input: &[u8]) -> bool {
    let whole = messages(vec![Bytes::copy_from_slice(input)]);
    assert_eq!(messages(pieces(input)), whole, "in pieces");
    let (mut rest, mut expected) = (input, Vec::new());
    while let Some((&[0, a, b, c, d], behind)) = rest.split_first_chunk::<PREFIX>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some((message, behind)) = behind.split_at_checked(length).filter(|_| length <= LIMIT) else {
            break;
        };
        expected.push(Bytes::copy_from_slice(message));
        rest = behind;
    }
    assert_eq!(whole, (expected, rest.is_empty()));
    rest.is_empty()
}

/// The header `grpc-timeout`.
pub(crate) fn call_timeout(input: &[u8]) -> bool {
    let Some(timeout) = front::parse_timeout(input) else { return false };
    assert!(timeout <= Duration::from_secs(99_999_999 * 3600));
    assert!(timeout > Duration::ZERO || input.starts_with(b"0"));
    true
}

/// The details of an error that a client is sent.
pub(crate) fn error_details(input: &[u8]) -> bool {
    let status = Status::with_details(Code::Aborted, "it is", Bytes::copy_from_slice(input));
    let error = Error::from(status);
    assert_eq!((error.code(), error.message()), (Code::Aborted, "it is"));
    assert!(error.to_string().len() <= 32 + error.reason().len());
    !error.reason().is_empty() || error.retry_after().is_some()
}

/// `bytes` in pieces whose sizes follow from the bytes themselves, so that the same input is always cut alike.
pub(crate) fn pieces(bytes: &[u8]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut sizes = bytes.iter().map(|byte| usize::from(byte % 23));
    let mut out = Vec::new();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
        out.push(rest.split_to(size));
    }
    out
}

/// Details as a server sends them.
#[cfg(test)]
pub(crate) fn example_details() -> Vec<u8> {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let mut details = ErrorDetails::new();
    details.set_error_info("THROTTLED", "annals", [("limit".to_owned(), "7".to_owned())]);
    details.set_retry_info(Some(Duration::from_millis(1500)));
    Status::with_error_details(Code::ResourceExhausted, "later", details).details().to_vec()
}
