//! Messages as bytes: what carries records is neither built from structs nor decoded into them.
//!
//! A request is a head (the small fields, encoded here) and the run of records as the batch builder left it; a response is
//! the body itself, in the frames it came in, handed to `annals_wire::slice`. Only what is small (a unary produce) goes through
//! tonic's own codec, which copies it once each way.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use annals_wire::chunks::Chunks;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Version,
    header::{CONTENT_TYPE, TE},
    uri::PathAndQuery,
};
use http_body::{Body, Frame};
use tokio_stream::Stream;
use tonic::{
    Code, Status,
    client::GrpcService as _,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use crate::client::MAX_MESSAGE;

/// Bytes tonic gathers before it gives them to the connection, and reads at once.
const BUFFER: usize = 64 * 1024;

/// What stands before each message: not compressed, and its length.
const LEAD: usize = 5;

/// A message to send: `head`, then `run`.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawMessage {
    /// Encoded fields.
    pub(crate) head: Vec<u8>,
    /// Encoded records.
    pub(crate) run: Bytes,
}

/// Sends [`RawMessage`]s and receives [`Bytes`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = RawMessage;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = RawMessage;
    type Error = Status;

    fn encode(&mut self, message: RawMessage, room: &mut EncodeBuf<'_>) -> Result<(), Status> {
        room.reserve(message.head.len() + message.run.len());
        room.put_slice(&message.head);
        room.put_slice(&message.run);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, BUFFER)
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, body: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(body.copy_to_bytes(body.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, BUFFER)
    }
}

/// Opens a call. Nothing is copied on its way to the socket or from it: a message that is sent is a frame of its length and
/// head and a frame that is its run, and one that comes is the frames it came in.
pub(crate) async fn call(
    mut channel: Channel,
    path: PathAndQuery,
    messages: impl Stream<Item = RawMessage> + Send + Unpin + 'static,
) -> Result<Messages, Status> {
    let broken = |error: tonic::transport::Error| Status::from_error(Box::new(error));
    let mut request = Request::new(tonic::body::Body::new(Framed { messages, run: None }));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = path.into();
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    poll_fn(|context| channel.poll_ready(context)).await.map_err(broken)?;
    let (head, body) = channel.call(request).await.map_err(broken)?.into_parts();
    let ended = match Status::from_header_map(&head.headers) {
        None => false,
        Some(status) if status.code() == Code::Ok => true,
        Some(status) => return Err(status),
    };
    Ok(Messages { body, status: head.status, frames: VecDeque::new(), held: 0, length: None, ended })
}

/// Messages as gRPC has them: not compressed, a length, the bytes.
struct Framed<S> {
    messages: S,
    /// Comes next.
    run: Option<Bytes>,
}

impl<S: Stream<Item = RawMessage> + Unpin> Body for Framed<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(run) = self.run.take() {
            return Poll::Ready(Some(Ok(Frame::data(run))));
        }
        let Some(RawMessage { head, run }) = ready!(Pin::new(&mut self.messages).poll_next(context)) else {
            return Poll::Ready(None);
        };
        let length = u32::try_from(head.len() + run.len()).expect("a request is far smaller than 4 GiB");
        let mut lead = BytesMut::with_capacity(LEAD + head.len());
        lead.put_u8(0);
        lead.put_u32(length);
        lead.put_slice(&head);
        self.run = Some(run).filter(|run| !run.is_empty());
        Poll::Ready(Some(Ok(Frame::data(lead.freeze()))))
    }
}

/// Messages of an answer, each in the pieces it came in.
#[derive(Debug)]
pub(crate) struct Messages {
    body: tonic::body::Body,
    status: StatusCode,
    /// Came, and belong to no message that was handed out.
    frames: VecDeque<Bytes>,
    held: usize,
    /// Of the message that comes, once it is known.
    length: Option<usize>,
    ended: bool,
}

impl Messages {
    /// The next message; `None` once the call has ended well. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Status> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            match poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await {
                None => self.end(None)?,
                Some(frame) => match frame?.into_data() {
                    Ok(data) => {
                        self.held += data.len();
                        self.frames.push_back(data);
                    }
                    Err(frame) => self.end(frame.trailers_ref())?,
                },
            }
        }
    }

    fn take_message(&mut self) -> Result<Option<Vec<Bytes>>, Status> {
        if self.length.is_none() && self.held >= LEAD {
            let mut lead = [0; LEAD];
            let mut room = lead.as_mut_slice();
            for piece in self.take(LEAD) {
                room.put_slice(&piece);
            }
            let [packed, length @ ..] = lead;
            if packed != 0 {
                return Err(Status::internal("a compressed message, which was not asked for"));
            }
            let length = u32::from_be_bytes(length) as usize;
            if length > MAX_MESSAGE {
                let what = format!("a message of {length} bytes, at most {MAX_MESSAGE} are taken");
                return Err(Status::out_of_range(what));
            }
            self.length = Some(length);
        }
        Ok(self.length.take_if(|length| *length <= self.held).map(|length| self.take(length)))
    }

    /// The first so many bytes, which are there.
    fn take(&mut self, mut bytes: usize) -> Vec<Bytes> {
        self.held -= bytes;
        let mut pieces = Vec::with_capacity(4);
        while bytes > 0 {
            let front = self.frames.front_mut().expect("as many bytes are held as were counted");
            let piece = front.split_to(bytes.min(front.len()));
            if front.is_empty() {
                self.frames.pop_front();
            }
            bytes -= piece.len();
            if !piece.is_empty() {
                pieces.push(piece);
            }
        }
        pieces
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Status> {
        self.ended = true;
        match trailers.and_then(Status::from_header_map) {
            Some(status) if status.code() != Code::Ok => Err(status),
            Some(_) if self.held == 0 && self.length.is_none() => Ok(()),
            Some(_) => Err(Status::internal("the answer ends within a message")),
            None if self.status == StatusCode::OK => {
                Err(Status::unknown("the answer ended without saying how, perhaps cut by a proxy"))
            }
            None => Err(of_http(self.status)),
        }
    }
}

/// A message in one piece, for the generated decoders.
#[allow(clippy::needless_pass_by_value, reason = "whoever wants one piece has no use for several")]
pub(crate) fn joined(message: Vec<Bytes>) -> Bytes {
    Chunks::of(&message).to_bytes()
}

/// What an answer that is not gRPC means, as gRPC has it.
fn of_http(status: StatusCode) -> Status {
    let code = match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("the answer is no gRPC, but HTTP with status {}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer that came in these frames.
    struct Came(VecDeque<Frame<Bytes>>);

    impl Body for Came {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn answer(status: u16, frames: &[&'static [u8]], grpc_status: Option<&'static str>) -> Messages {
        let data = frames.iter().map(|frame| Frame::data(Bytes::from_static(frame)));
        let trailers = grpc_status.map(|code| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(code));
            Frame::trailers(trailers)
        });
        let body = tonic::body::Body::new(Came(data.chain(trailers).collect()));
        let status = StatusCode::from_u16(status).unwrap();
        Messages { body, status, frames: VecDeque::new(), held: 0, length: None, ended: false }
    }

    async fn all(mut messages: Messages) -> Result<Vec<Bytes>, Code> {
        let mut all = Vec::new();
        while let Some(message) = messages.next().await.map_err(|status| status.code())? {
            assert!(message.iter().all(|piece| !piece.is_empty()));
            all.push(joined(message));
        }
        assert!(messages.next().await.unwrap().is_none(), "the end stays the end");
        Ok(all)
    }

    #[tokio::test]
    async fn messages_come_out_however_they_were_cut() {
        let cuts: [&[&'static [u8]]; 4] = [
            &[b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x02de"],
            &[b"\0\0\0", b"\0\x03a", b"", b"bc\0", b"\0\0\0\0", b"\0\0\0\0\x02d", b"e"],
            &[b"\0\0\0\0\x03", b"abc", b"\0\0\0\0\0", b"\0\0\0\0\x02", b"de"],
            &[b"\0\0\0\0\x03abc", b"\0\0\0\0\0\0\0\0\0\x02de"],
        ];
        for frames in cuts {
            let got = all(answer(200, frames, Some("0"))).await;
            assert_eq!(got.unwrap(), ["abc", "", "de"], "{frames:?}");
        }
    }

    #[tokio::test]
    async fn a_message_in_one_frame_is_that_frame() {
        let frame: &'static [u8] = b"\0\0\0\0\x03abc";
        let mut messages = answer(200, &[frame], Some("0"));
        let message = messages.next().await.unwrap().unwrap();
        let [piece] = message.as_slice() else { panic!("one piece: {message:?}") };
        assert_eq!(piece.as_ptr(), frame[5..].as_ptr());
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_an_error() {
        let whole: &[&'static [u8]] = &[b"\0\0\0\0\x03abc"];
        for (status, frames, grpc_status, want) in [
            (200, whole, Some("5"), Code::NotFound),
            (200, whole, None, Code::Unknown),
            (200, &[b"\0\0\0\0\x03ab" as &[u8]], Some("0"), Code::Internal),
            (200, &[b"\0\0\0"], Some("0"), Code::Internal),
            (200, &[b"\x01\0\0\0\x03abc"], Some("0"), Code::Internal),
            (200, &[b"\0\xFF\0\0\0"], Some("0"), Code::OutOfRange),
            (503, &[], None, Code::Unavailable),
            (404, &[], None, Code::Unimplemented),
        ] {
            assert_eq!(all(answer(status, frames, grpc_status)).await, Err(want), "{status} {frames:?}");
        }
    }
}
