//! AppendAndCommit: outputs and input offsets, one answer. The outputs' records stay where they are until they are in a file.

use annals_wire::request::{self, ScannedStep};
use http::Response;
use http_body::Body;

use super::{Raw, ack, in_time, message, produce::malformed, until_deadline};
use crate::{
    broker::{self, Principal},
    grpc::{
        answer::{self, Answer, Pieces},
        convert,
        front::Call,
        refusal::Refusal,
    },
};
use bytes::Bytes;

pub(super) async fn serve<B>(raw: &Raw, call: Call<B>) -> Result<Response<Answer>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let Call { request, principal, timeout } = call;
    let _writing = raw.writers.enter();
    let produced = until_deadline(timeout, true, async {
        let mut messages = raw.record_messages(request.into_body());
        let message = in_time(message::only(&mut messages)).await?;
        let scanned = request::scan_step(&message.chunks).map_err(malformed)?;
        let produced = raw.broker.append_and_commit(step(scanned, principal)?).await?;
        drop(message); // its room is given back once the broker has let go of the records
        Ok(produced)
    })
    .await?;
    // The fields of the answer are those of a ProduceResponse.
    Ok(answer::whole(Pieces::from_iter([ack::unary(&produced)])))
}

/// The step that is asked for.
pub(super) fn step(scanned: ScannedStep, principal: Principal) -> Result<broker::Step, Refusal> {
    let ScannedStep { request_id, group, member_id, offsets, outputs } = scanned;
    if offsets.is_empty() && !group.is_empty() {
        return Err(Refusal::argument(
            "group",
            "is named without offsets: leave it empty, or say where it stands",
        ));
    }
    let positions = offsets.into_iter().enumerate();
    let positions = positions.map(|(index, position)| convert::commit_position(index, position));
    let positions = positions.collect::<Result<Vec<_>, _>>()?;
    let commit = (!positions.is_empty()).then_some(broker::Commit {
        group,
        positions,
        allow_backwards: false,
        member_id,
        override_members: false,
    });
    Ok(broker::Step { request_id, commit, outputs, principal })
}
