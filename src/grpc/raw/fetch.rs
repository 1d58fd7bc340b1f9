//! Fetch: positions in, slices out.

use annals_wire::v1;
use bytes::Bytes;
use http::Response;
use http_body::Body;

use super::{
    Raw,
    encode::{Writer, room},
    message::Message,
    until_deadline,
};
use crate::grpc::{
    answer::{self, Answer},
    convert,
    front::Call,
    refusal::Refusal,
};

/// Field of `FetchResponse`.
const ERRORS: u32 = 2;

pub(super) async fn serve<B>(raw: &Raw, call: Call<B>) -> Result<Response<Answer>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let Call { request, timeout, .. } = call;
    let fetched = until_deadline(timeout, false, async {
        let asked: v1::FetchRequest = decode(raw.small_message(request.into_body()).await?)?;
        Ok(raw.broker.fetch(convert::fetch(asked, timeout)?).await?)
    })
    .await?;
    let mut writer = Writer::new(fetched.slices.iter().map(room).sum());
    fetched.slices.iter().for_each(|slice| writer.slice(slice));
    fetched.errors.iter().for_each(|failure| writer.field(ERRORS, &convert::partition_error(failure)));
    Ok(answer::whole(writer.finish()))
}

/// Decodes a small message as any stub's would be.
pub(super) fn decode<M: prost::Message + Default>(message: Message) -> Result<M, Refusal> {
    M::decode(message.into_bytes()).map_err(|error| Refusal::malformed("body", error.to_string()))
}
