//! Produce: one request, its records stored, one answer.

use annals_wire::request::{self, ScanError, ScanReason, ScannedProduce};
use bytes::Bytes;
use http::Response;
use http_body::Body;

use super::{Raw, ack, in_time, message, until_deadline};
use crate::{
    broker,
    grpc::{
        answer::{self, Answer, Pieces},
        front::Call,
        refusal::Refusal,
    },
};

pub(super) async fn serve<B>(raw: &Raw, call: Call<B>) -> Result<Response<Answer>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let Call { request, principal, timeout } = call;
    let _writing = raw.writers.enter();
    let produced = until_deadline(timeout, true, async {
        let mut messages = raw.record_messages(request.into_body());
        let message = in_time(message::only(&mut messages)).await?;
        let scanned = request::scan(&message.chunks).map_err(malformed)?;
        let produced = raw.broker.produce(broker::Produce { scanned, principal }).await?;
        drop(message); // its room is given back once the broker has let go of the records
        Ok(produced)
    })
    .await?;
    Ok(answer::whole(Pieces::from_iter([ack::unary(&produced)])))
}

/// The scanner's words for bytes that are not a request.
pub(super) fn malformed(error: ScanError) -> Refusal {
    Refusal::malformed("body", error.to_string())
}

/// The request in a message of a stream; `None` if there is none: the message is a sign of life. What only makes sense
/// in a unary call is refused.
pub(super) fn scan_streamed(chunks: &[Bytes]) -> Result<Option<ScannedProduce>, Refusal> {
    match request::scan_stream(chunks) {
        Ok(scanned) if scanned.request_id.is_empty() => Ok(Some(scanned)),
        Ok(_) => {
            Err(Refusal::argument("append.request_id", "only Produce takes a request_id; a stream does not"))
        }
        Err(error) if error.reason == ScanReason::NoAppend => Ok(None),
        Err(error) => Err(malformed(error)),
    }
}
