//! gRPC messages out of HTTP body frames, without a copy.
//!
//! ```text
//! body frames    [.....][...........][..][.........]
//! gRPC           |flag|length (4, big endian)|message ...|flag|length|message ...|
//! a Message      the slices of the frames that the message covers, in order
//! ```
//!
//! 1. The length is checked against the limit before a byte of the message is kept, and its room is taken from the
//!    [`Budget`](super::budget::Budget) first: memory for requests is bounded over all connections.
//! 2. Frames are kept as they came. Only a sender of crumbs (frames below [`CRUMB`] on average) gets its message
//!    gathered into one buffer, so that the list of slices stays short.
//! 3. [`Messages::next`] may be dropped and called again: what has arrived stays in `self`.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body;
use smallvec::SmallVec;

use super::budget::{Budget, Claim, Held};
use crate::grpc::refusal::Refusal;

/// Bytes in front of every message: a flag for compression and the length.
pub(crate) const PREFIX: usize = 5;
/// Frames smaller than this, on average, are gathered.
const CRUMB: usize = 512;
/// So many slices are kept of any message.
const FREE_SLICES: usize = 64;

/// The slices of one message.
pub(crate) type Chunks = SmallVec<[Bytes; 4]>;

/// A whole message, and the room it takes until it is dropped.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its bytes, in order; no slice is empty.
    pub(crate) chunks: Chunks,
    /// Room taken from the budget.
    pub(crate) held: Held,
}

impl Message {
    /// The message as one run of bytes; copies if it is not one already. For small messages.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.chunks.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            many => {
                let mut gathered = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
                for chunk in many {
                    gathered.extend_from_slice(chunk);
                }
                gathered.freeze()
            }
        }
    }
}

/// What of a message is there.
#[derive(Debug)]
enum Stage {
    /// Fewer than [`PREFIX`] bytes.
    Prefix { bytes: [u8; PREFIX], filled: usize },
    /// The prefix is read; waiting for room.
    Room { length: usize, claim: Claim },
    /// Part of the message.
    Partial { missing: usize, kept: Kept, held: Held },
    /// An error was reported, or the body ended.
    Over,
}

const EMPTY: Stage = Stage::Prefix { bytes: [0; PREFIX], filled: 0 };

/// Messages of one request body.
#[derive(Debug)]
pub(crate) struct Messages<B> {
    body: B,
    /// Of a frame that was not used up.
    rest: Bytes,
    stage: Stage,
    limit: usize,
    budget: Budget,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Messages of at most `limit` bytes each.
    pub(crate) fn new(body: B, limit: usize, budget: Budget) -> Self {
        Self { body, rest: Bytes::new(), stage: EMPTY, limit, budget }
    }

    /// Bytes that are still to come of a message that has begun.
    pub(crate) fn missing(&self) -> Option<usize> {
        match &self.stage {
            Stage::Partial { missing, .. } => Some(*missing),
            Stage::Prefix { filled: 1.., .. } => Some(0),
            Stage::Prefix { .. } | Stage::Room { .. } | Stage::Over => None,
        }
    }

    /// The next whole message; `None` at the end of the body. After an error there is nothing more.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>, Refusal> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// See [`Self::next`].
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Message>, Refusal>> {
        let outcome = ready!(self.poll_message(context));
        if !matches!(outcome, Ok(Some(_))) {
            self.stage = Stage::Over;
        }
        Poll::Ready(outcome)
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Message>, Refusal>> {
        loop {
            match &mut self.stage {
                Stage::Over => return Poll::Ready(Ok(None)),
                Stage::Prefix { bytes, filled } => {
                    let take = self.rest.len().min(PREFIX - *filled);
                    for (slot, byte) in bytes.iter_mut().skip(*filled).zip(self.rest.split_to(take)) {
                        *slot = byte;
                    }
                    *filled += take;
                    if *filled == PREFIX {
                        let length = check_prefix(*bytes, self.limit)?;
                        self.stage = Stage::Room { length, claim: self.budget.claim(length) };
                        continue;
                    }
                }
                Stage::Room { length, claim } => {
                    let held = ready!(claim.poll(context));
                    self.stage = Stage::Partial { missing: *length, kept: Kept::new(*length), held };
                    continue;
                }
                Stage::Partial { missing, kept, held } => {
                    let take = self.rest.len().min(*missing);
                    if take > 0 {
                        kept.push(self.rest.split_to(take), *missing);
                        *missing -= take;
                    }
                    if *missing == 0 {
                        let message = Message { chunks: kept.take(), held: mem::take(held) };
                        self.stage = EMPTY;
                        return Poll::Ready(Ok(Some(message)));
                    }
                }
            }
            // Everything of `rest` is used: another frame is needed.
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            match frame {
                // Trailers of a request mean nothing in gRPC.
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return Poll::Ready(Err(Refusal::Disconnected)),
                None if matches!(self.stage, Stage::Prefix { filled: 0, .. }) => {
                    return Poll::Ready(Ok(None));
                }
                None => {
                    return Poll::Ready(Err(Refusal::malformed(
                        "body",
                        "it ends in the middle of a message",
                    )));
                }
            }
        }
    }
}

/// Length of the message behind a prefix.
pub(crate) fn check_prefix(prefix: [u8; PREFIX], limit: usize) -> Result<usize, Refusal> {
    let [flag, length @ ..] = prefix;
    let length = u32::from_be_bytes(length);
    match flag {
        0 => {}
        1 => return Err(Refusal::MessageCompressed),
        other => {
            return Err(Refusal::malformed(
                "body",
                format!("byte {other} where a message begins; gRPC has 0 or 1 there"),
            ));
        }
    }
    match usize::try_from(length) {
        Ok(length) if length <= limit => Ok(length),
        _ => Err(Refusal::too_large(u64::from(length), limit)),
    }
}

/// The bytes of a message so far.
#[derive(Debug)]
enum Kept {
    /// As they came.
    Slices { slices: Chunks, most: usize },
    /// Gathered, because they came in crumbs.
    Gathered(BytesMut),
}

impl Kept {
    fn new(length: usize) -> Self {
        Self::Slices { slices: Chunks::new(), most: FREE_SLICES + length / CRUMB }
    }

    /// Takes a piece; `missing` bytes of the message are still to come, the piece's own among them.
    fn push(&mut self, piece: Bytes, missing: usize) {
        match self {
            Self::Slices { slices, most } if slices.len() < *most => {
                if slices.len() == slices.capacity() {
                    // As many again as the pieces so far let expect, at once instead of by doubling.
                    slices.reserve((missing / piece.len()).clamp(1, *most));
                }
                slices.push(piece);
            }
            Self::Slices { slices, .. } => {
                let mut gathered =
                    BytesMut::with_capacity(slices.iter().map(Bytes::len).sum::<usize>() + missing);
                slices.iter().for_each(|slice| gathered.extend_from_slice(slice));
                gathered.extend_from_slice(&piece);
                *self = Self::Gathered(gathered);
            }
            Self::Gathered(gathered) => gathered.extend_from_slice(&piece),
        }
    }

    fn take(&mut self) -> Chunks {
        match self {
            Self::Slices { slices, .. } => mem::take(slices),
            Self::Gathered(gathered) => Chunks::from_iter([gathered.split().freeze()]),
        }
    }
}

/// Reads the one message of a unary call and makes sure that nothing follows it.
pub(crate) async fn only<B>(messages: &mut Messages<B>) -> Result<Message, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let Some(message) = messages.next().await? else {
        return Err(Refusal::malformed("body", "it holds no message"));
    };
    match messages.next().await? {
        None => Ok(message),
        Some(more) => Err(Refusal::malformed(
            "body",
            format!(
                "a second message of {} bytes in a call that takes one",
                more.chunks.iter().map(Bytes::remaining).sum::<usize>()
            ),
        )),
    }
}

#[cfg(test)]
mod tests;
