//! Subscribe: positions in, slices out for as long as the caller reads.
//!
//! The broker is asked for the next event only when the one before has left: what a slow reader has not taken is not
//! read either.

use annals_wire::v1::{self, subscribe_response::Event};
use bytes::Bytes;
use http::Response;
use http_body::Body;

use super::{
    Raw,
    encode::{self, Writer, room},
    fetch::decode,
};
use crate::{
    broker::{SubEvent, Subscription},
    grpc::{
        answer::{self, Answer, Outbox},
        convert,
        front::Call,
        refusal::Refusal,
    },
};

/// A caller's deadline is not the server's business here: a stream has no end to be late for.
pub(super) async fn serve<B>(raw: &Raw, call: Call<B>) -> Result<Response<Answer>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let asked: v1::SubscribeRequest = decode(raw.small_message(call.request.into_body()).await?)?;
    let subscription = raw.broker.subscribe(convert::subscribe(asked)?).await?;
    Ok(answer::stream(|outbox| run(subscription, outbox)))
}

async fn run(mut subscription: Subscription, outbox: Outbox) -> Result<(), Refusal> {
    while let Some(event) = subscription.next().await {
        let event = match event {
            SubEvent::Slice(slice) => {
                let mut writer = Writer::new(room(&slice));
                writer.slice(&slice);
                writer.finish().into_iter().for_each(|piece| outbox.push(piece));
                outbox.sent().await;
                continue;
            }
            SubEvent::Heartbeat { now_ms, watermarks } => Event::Heartbeat(v1::Heartbeat {
                now_ms,
                watermarks: watermarks.iter().map(convert::watermark).collect(),
            }),
            SubEvent::CaughtUp { topic, topic_id, partition, next_offset, leader_epoch } => {
                Event::CaughtUp(v1::CaughtUp {
                    topic: topic.as_ref().into(),
                    partition,
                    next_offset,
                    leader_epoch,
                    topic_id: convert::id(topic_id),
                })
            }
            SubEvent::PartitionError(failure) => Event::PartitionError(convert::partition_error(&failure)),
            SubEvent::Drain { deadline_ms } => {
                send(&outbox, Event::Drain(v1::Drain { deadline_ms })).await;
                return Err(Refusal::Drained);
            }
        };
        send(&outbox, event).await;
    }
    Ok(())
}

async fn send(outbox: &Outbox, event: Event) {
    outbox.push(encode::message(&v1::SubscribeResponse { event: Some(event) }));
    outbox.sent().await;
}
