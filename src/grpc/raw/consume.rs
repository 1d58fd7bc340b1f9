//! Consume: membership of a group.
//!
//! ```text
//! messages -> ears (a task of their own) -> Desk -> Consumption -> answers, as the connection takes them
//! ```
//!
//! 1. The first message is `join`, within a minute; every other comes after it. What makes no sense, or comes at the wrong
//!    time, ends the stream with a typed refusal.
//! 2. The ears listen whatever becomes of the answers: a member that does not read is still heard, so it stays a member, and
//!    its commits are stored. They stop listening while too many commits are unanswered.
//! 3. The end of the requests is a `leave`. A connection that breaks is not: the session times out, or its name comes back.
//! 4. When the server goes away the member is told once, gets no more records, and what it commits is answered until it has
//!    been quiet for [`QUIET`].

use std::time::Duration;

use annals_wire::v1::{self, consume_request::Command, consume_response::Event};
use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::Body;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn},
};

use super::{
    MAX_SMALL_REQUEST, Raw,
    encode::{self, Writer, room},
    fetch::decode,
    in_time,
    message::{Message, Messages},
};
use crate::{
    broker::{Consumption, MemberEvent, MemberHandle},
    grpc::{
        Peer,
        answer::{self, Answer, Outbox},
        convert,
        front::Call,
        membership,
        refusal::Refusal,
    },
    sync::Arc,
};

/// Answers are written into one buffer of about this size until it is full.
const ANSWER_BUFFER: usize = 16 << 10;
/// A drained stream in which nothing more is committed for so long is ended.
const QUIET: Duration = Duration::from_secs(1);

/// A caller's deadline is not the server's business here: a stream has no end to be late for.
pub(super) fn serve<B>(raw: Arc<Raw>, call: Call<B>) -> Response<Answer>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let (head, body) = call.request.into_parts();
    let peer = head.extensions.get::<Peer>().map(|peer| Arc::clone(&peer.0)).unwrap_or_default();
    let messages = Messages::new(body, MAX_SMALL_REQUEST, raw.small.clone());
    answer::stream(|outbox| run(raw, peer, messages, outbox))
}

async fn run<B>(
    raw: Arc<Raw>,
    peer: Arc<str>,
    mut messages: Messages<B>,
    outbox: Outbox,
) -> Result<(), Refusal>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let Some(first) = in_time(messages.next()).await? else {
        return Err(Refusal::malformed("body", "it holds no message"));
    };
    let Some(Command::Join(join)) = command(first)? else {
        return Err(Refusal::argument("command", "the first message of a stream is `join`"));
    };
    let consumption = raw.broker.join(membership::join(join, peer)?).await?;
    let (told, ended) = oneshot::channel();
    let handle = consumption.handle();
    let _ears = Ears(spawn(async move {
        // Nobody is left to be told if the mouth is gone.
        let _gone = told.send(listen(&handle, messages).await);
    }));
    Mouth { consumption, answers: BytesMut::new(), outbox, drained: false }.speak(ended).await
}

/// The task that listens; it ends with its stream.
struct Ears(JoinHandle<()>);

impl Drop for Ears {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens until the member leaves.
async fn listen<B>(member: &MemberHandle, mut messages: Messages<B>) -> Result<(), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    while let Some(message) = messages.next().await? {
        member.heard();
        if member.is_over() {
            return Ok(());
        }
        match command(message)? {
            None | Some(Command::Heartbeat(_)) => {}
            Some(Command::Join(_)) => {
                return Err(Refusal::argument("join", "this stream is a member already; join on another"));
            }
            Some(Command::Credit(credit)) => member.credit(credit.bytes),
            Some(Command::Commit(commit)) => {
                let positions = commit.offsets.into_iter().enumerate();
                let positions = positions.map(|(index, position)| convert::commit_position(index, position));
                member.commit(commit.commit_id, positions.collect::<Result<_, _>>()?).await?;
            }
            Some(Command::Pause(pause)) => member.pause(&membership::places(pause.partitions)),
            Some(Command::Resume(resume)) => member.resume(&membership::places(resume.partitions)),
            Some(Command::Released(released)) => {
                member.released(&membership::places(released.partitions)).await?;
            }
            Some(Command::Leave(_)) => break,
        }
    }
    Ok(member.leave().await?)
}

fn command(message: Message) -> Result<Option<Command>, Refusal> {
    Ok(decode::<v1::ConsumeRequest>(message)?.command)
}

/// What the member is told.
struct Mouth {
    consumption: Consumption,
    /// Not handed on yet.
    answers: BytesMut,
    outbox: Outbox,
    drained: bool,
}

impl Mouth {
    async fn speak(mut self, mut ended: oneshot::Receiver<Result<(), Refusal>>) -> Result<(), Refusal> {
        let mut listens = true;
        loop {
            let said = tokio::select! {
                biased;
                // A task that is gone without a word was aborted: by this stream's own end.
                outcome = &mut ended, if listens => {
                    listens = false;
                    if let Ok(Err(refusal)) = outcome {
                        return Err(refusal);
                    }
                    continue;
                }
                said = self.consumption.next() => said,
                () = tokio::time::sleep(QUIET), if self.drained => return Err(Refusal::Drained),
            };
            let mut said = Some(said);
            while let Some(next) = said {
                match next {
                    Some(Ok(event)) => said = if self.take(event) { self.consumption.now() } else { None },
                    Some(Err(error)) => {
                        self.send().await;
                        return Err(error.into());
                    }
                    None => {
                        self.put(Event::Drain(v1::Drain { deadline_ms: 0 }));
                        self.send().await;
                        return Ok(());
                    }
                }
            }
            self.send().await;
        }
    }

    /// Writes an event down; false = what there is goes out before the next.
    fn take(&mut self, event: MemberEvent) -> bool {
        if let MemberEvent::Slice(slice) = &event {
            self.flush();
            let mut writer = Writer::new(room(slice));
            writer.slice(slice);
            writer.finish().into_iter().for_each(|piece| self.outbox.push(piece));
            return false;
        }
        self.drained |= matches!(event, MemberEvent::Drain { .. });
        if let Some(event) = membership::event(event) {
            self.put(event);
        }
        self.answers.len() < ANSWER_BUFFER
    }

    fn put(&mut self, event: Event) {
        encode::put_message(&mut self.answers, &v1::ConsumeResponse { event: Some(event) });
    }

    fn flush(&mut self) {
        if !self.answers.is_empty() {
            self.outbox.push(self.answers.split().freeze());
        }
    }

    async fn send(&mut self) {
        self.flush();
        self.outbox.sent().await;
    }
}
