//! OpenProducer: a producer's id and epoch, and where it stands.

use annals_wire::v1;
use bytes::Bytes;
use http::Response;
use http_body::Body;

use super::{Raw, encode, fetch::decode, until_deadline};
use crate::{
    broker::{OpenedProducer, ProducerPosition},
    grpc::{
        answer::{self, Answer, Pieces},
        convert,
        front::Call,
        refusal::Refusal,
    },
    storage::WINDOW,
};

pub(super) async fn serve<B>(raw: &Raw, call: Call<B>) -> Result<Response<Answer>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let Call { request, principal, timeout } = call;
    let opened = until_deadline(timeout, true, async {
        let message = raw.small_message(request.into_body()).await?;
        let asked: v1::OpenProducerRequest = decode(message)?;
        Ok(raw.broker.open_producer(&principal, &asked.name).await?)
    })
    .await?;
    Ok(answer::whole(Pieces::from_iter([encode::message(&response(opened))])))
}

/// An answer as a message.
pub(super) fn response(opened: OpenedProducer) -> v1::OpenProducerResponse {
    let position = |position: ProducerPosition| v1::ProducerPosition {
        topic: position.topic.as_ref().into(),
        topic_id: convert::id(position.topic_id),
        partition: position.partition,
        next_sequence: position.next_sequence,
        last_offset: position.last_offset,
    };
    v1::OpenProducerResponse {
        producer_id: opened.producer_id,
        producer_epoch: opened.producer_epoch,
        positions: opened.positions.into_iter().map(position).collect(),
        window_batches: u32::try_from(WINDOW).unwrap_or(u32::MAX),
    }
}
