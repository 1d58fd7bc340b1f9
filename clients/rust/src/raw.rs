//! Messages as bytes: what carries records is neither built from structs nor decoded into them.
//!
//! A request is a head (the small fields, encoded here) and the run of records as the batch builder left it; a response is
//! the body itself, handed to `annals_wire::slice`. One copy each way, tonic's own.

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Bytes tonic gathers before it gives them to the connection, and reads at once.
const BUFFER: usize = 64 * 1024;

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
