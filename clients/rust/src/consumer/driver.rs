//! The task that speaks for a member: one stream after the other, under the same name.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use annals_wire::{
    slice::ConsumerMessage,
    v1::{self, consume_request::Command as Say, consume_response::Event},
};
use bytes::Bytes;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use super::{
    Consumed, ConsumerBuilder, Delivery, Item, ended,
    held::{Held, Place},
};
use crate::{
    clock, endpoint,
    error::{Error, Result, reason},
    raw::{self, Messages, RawMessage},
    reader::{ReaderState, Records, codecs},
};

const PATH: PathAndQuery = PathAndQuery::from_static("/annals.v1.ConsumerService/Consume");
/// How often to speak before the server has said it.
const FIRST_BEAT: Duration = Duration::from_millis(500);
/// A server that is silent for so many heartbeat intervals is gone.
const LOST_BEATS: u32 = 3;
/// Silence of a server at least, before it counts as gone: a name that is in use is waited for in silence.
const PATIENCE: Duration = Duration::from_secs(25);

/// What the application wants.
#[derive(Debug)]
pub(super) enum Command {
    /// It took records of so many bytes.
    Taken(u64),
    Commit(Vec<v1::CommitPosition>, oneshot::Sender<Result<()>>),
    Stored(Vec<v1::CommitPosition>),
    Release,
    Pause(Vec<v1::TopicPartition>),
    Resume(Vec<v1::TopicPartition>),
    Close(oneshot::Sender<()>),
}

/// A commit under way.
#[derive(Debug)]
struct Open {
    commit_id: u64,
    positions: Vec<v1::CommitPosition>,
    reply: oneshot::Sender<Result<()>>,
}

#[derive(Debug)]
pub(super) struct Driver {
    options: ConsumerBuilder,
    held: Arc<Mutex<Held>>,
    commands: mpsc::UnboundedReceiver<Command>,
    items: mpsc::UnboundedSender<Item>,
    /// Told once, when the member joined first or cannot.
    ready: Option<oneshot::Sender<Result<String>>>,
    /// Bytes received and not taken by the application.
    ahead: u64,
    commits: u64,
    failures_in_a_row: u32,
}

/// One stream.
struct Line {
    requests: mpsc::UnboundedSender<RawMessage>,
    messages: Messages,
    open: VecDeque<Open>,
    heard: Instant,
    patience: Duration,
    beat: tokio::time::Interval,
}

/// How a stream ends.
enum End {
    /// The application closed the member, or dropped it.
    Closed,
    Lost(Error),
}

impl Line {
    fn say(&self, command: Say) {
        let request = v1::ConsumeRequest { command: Some(command) };
        // The stream's end is seen where its messages are read.
        let _over = self.requests.send(RawMessage { head: request.encode_to_vec(), ..Default::default() });
    }

    fn released(&self, places: Vec<Place>) {
        if !places.is_empty() {
            self.say(Say::Released(v1::ConsumeReleased { partitions: named(places) }));
        }
    }
}

impl Driver {
    pub(super) fn new(
        options: ConsumerBuilder,
        held: Arc<Mutex<Held>>,
        commands: mpsc::UnboundedReceiver<Command>,
        items: mpsc::UnboundedSender<Item>,
        ready: oneshot::Sender<Result<String>>,
    ) -> Self {
        let ready = Some(ready);
        Self { options, held, commands, items, ready, ahead: 0, commits: 0, failures_in_a_row: 0 }
    }

    pub(super) async fn run(mut self) {
        loop {
            let error = match self.connect().await {
                Ok(line) => match self.speak(line).await {
                    End::Closed => return,
                    End::Lost(error) => error,
                },
                Err(error) => error,
            };
            let held = self.held.lock().lost_all();
            self.revoked(held, Duration::ZERO);
            self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
            // Out of the group is in again: under the same name.
            let again = error.is_temporary() || error.is_fenced();
            let wait = self.options.backoff.wait(self.failures_in_a_row, &error);
            let Some(retry_in) = wait.filter(|_| again && self.ready.is_none()) else {
                match self.ready.take() {
                    // Nobody may wait for it any more.
                    Some(ready) => drop(ready.send(Err(error))),
                    None => self.hand(Item::Failed(error)),
                }
                return;
            };
            self.tell(&ReaderState::Lost { error, retry_in });
            if self.wait(retry_in).await {
                return;
            }
        }
    }

    /// Waits before the next try; true = the member was closed meanwhile.
    async fn wait(&mut self, retry_in: Duration) -> bool {
        let until = clock::now() + retry_in;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return false,
                command = self.commands.recv() => match command {
                    None | Some(Command::Close(_)) => return true,
                    Some(Command::Taken(bytes)) => self.ahead = self.ahead.saturating_sub(bytes),
                    Some(Command::Commit(_, reply)) => {
                        // Its partitions are not this member's just now.
                        drop(reply.send(Err(Error::new(
                            tonic::Code::FailedPrecondition,
                            reason::FENCED,
                            "the connection is lost: these partitions are not this member's until it joins again",
                        ))));
                    }
                    Some(Command::Stored(_) | Command::Release | Command::Pause(_) | Command::Resume(_)) => {}
                },
            }
        }
    }

    async fn connect(&mut self) -> Result<Line> {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let credit = self.options.prefetch_bytes.saturating_sub(self.ahead);
        let join = v1::ConsumeJoin {
            credit: Some(v1::ConsumeCredit { bytes: credit }),
            accept_codecs: codecs(),
            ..self.options.join.clone()
        };
        let first = v1::ConsumeRequest { command: Some(Say::Join(join)) };
        drop(requests.send(RawMessage { head: first.encode_to_vec(), ..Default::default() }));
        let client = &self.options.client;
        let opened = raw::call(client.channel(), PATH, UnboundedReceiverStream::new(outgoing)).await;
        let messages = opened.map_err(|status| endpoint::name_server(status.into(), client.server()))?;
        let heard = clock::now();
        Ok(Line {
            requests,
            messages,
            open: VecDeque::new(),
            heard,
            patience: PATIENCE,
            beat: beat(FIRST_BEAT),
        })
    }

    async fn speak(&mut self, mut line: Line) -> End {
        let end = loop {
            tokio::select! {
                message = line.messages.next() => {
                    let message = match message {
                        Ok(Some(message)) => message,
                        Ok(None) => break End::Lost(Status::unavailable("the server ended the stream").into()),
                        Err(status) => break End::Lost(status.into()),
                    };
                    line.heard = clock::now();
                    if let Err(error) = self.take(&mut line, &message) {
                        break End::Lost(error);
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Close(reply)) => {
                        leave(&mut line).await;
                        let _gone = reply.send(());
                        break End::Closed;
                    }
                    None => {
                        leave(&mut line).await;
                        break End::Closed;
                    }
                    Some(command) => self.obey(&mut line, command),
                },
                _ = line.beat.tick() => line.say(Say::Heartbeat(v1::ConsumeHeartbeat {})),
                () = tokio::time::sleep_until(line.heard + line.patience) => {
                    break End::Lost(Status::unavailable("no sign of life from the server").into());
                }
            }
        };
        let unknown = match &end {
            End::Closed => ended(),
            End::Lost(error) => Error::outcome_unknown(error),
        };
        for open in line.open {
            // Whoever asked may have gone.
            drop(open.reply.send(Err(unknown.clone())));
        }
        end
    }

    fn obey(&mut self, line: &mut Line, command: Command) {
        match command {
            Command::Taken(bytes) => {
                self.ahead = self.ahead.saturating_sub(bytes);
                line.say(Say::Credit(v1::ConsumeCredit { bytes }));
            }
            Command::Commit(positions, reply) => {
                self.commits += 1;
                let commit_id = self.commits;
                line.say(Say::Commit(v1::ConsumeCommit { commit_id, offsets: positions.clone() }));
                line.open.push_back(Open { commit_id, positions, reply });
            }
            Command::Stored(positions) => line.released(self.held.lock().committed(&positions)),
            Command::Release => line.released(self.held.lock().let_go()),
            Command::Pause(partitions) => line.say(Say::Pause(v1::ConsumePause { partitions })),
            Command::Resume(partitions) => line.say(Say::Resume(v1::ConsumeResume { partitions })),
            Command::Close(_) => {}
        }
    }

    fn take(&mut self, line: &mut Line, message: &[Bytes]) -> Result<()> {
        match ConsumerMessage::parse_pieces(message).map_err(Error::bad_answer)? {
            ConsumerMessage::Slice(slice) => {
                let records = Records::new(slice);
                let place = (records.topic().to_owned(), records.partition());
                let bytes = records.batch_bytes() as u64;
                let Some(assignment_epoch) = self.held.lock().epoch(&place) else {
                    line.say(Say::Credit(v1::ConsumeCredit { bytes }));
                    return Ok(());
                };
                self.ahead = self.ahead.saturating_add(bytes);
                self.hand(Item::Records(Delivery { records, assignment_epoch }, bytes));
            }
            ConsumerMessage::Event(event) => self.event(line, event)?,
            ConsumerMessage::Unknown => {}
        }
        Ok(())
    }

    fn event(&mut self, line: &mut Line, event: Event) -> Result<()> {
        match event {
            // The parser hands out slices by themselves.
            Event::Slice(_) | Event::Heartbeat(_) | Event::Drain(_) => {}
            Event::Joined(joined) => {
                let interval = Duration::from_millis(joined.heartbeat_interval_ms.max(1).into());
                line.beat = beat(interval.mul_f64(0.8));
                line.patience = interval * LOST_BEATS;
                self.failures_in_a_row = 0;
                if let Some(ready) = self.ready.take() {
                    // Whoever wanted to join may have gone; then the commands end, too.
                    drop(ready.send(Ok(joined.member_id)));
                }
                self.tell(&ReaderState::Connected);
            }
            Event::Assigned(assigned) => {
                self.held.lock().assigned(&assigned.partitions);
                self.hand(Item::Other(Consumed::Assigned(assigned.partitions)));
            }
            Event::Revoked(revoked) => {
                let places: Vec<Place> =
                    revoked.partitions.into_iter().map(|one| (one.topic, one.partition)).collect();
                if revoked.deadline_ms == 0 {
                    self.held.lock().lost(&places);
                } else {
                    line.released(self.held.lock().revoked(&places));
                }
                self.revoked(places, Duration::from_millis(revoked.deadline_ms.into()));
            }
            Event::Committed(committed) => {
                let open = line.open.pop_front();
                let open = open.filter(|open| open.commit_id == committed.commit_id);
                let open = open.ok_or_else(|| Error::bad_answer("an answer to no commit"))?;
                let outcome = committed.error.as_ref().map_or(Ok(()), |error| Err(error.into()));
                if outcome.is_ok() {
                    line.released(self.held.lock().committed(&open.positions));
                }
                // Whoever asked may have gone.
                drop(open.reply.send(outcome));
            }
            Event::CaughtUp(v1::CaughtUp { topic, partition, next_offset, .. }) => {
                self.hand(Item::Other(Consumed::CaughtUp { topic, partition, next_offset }));
            }
            Event::PartitionError(error) => self.hand(Item::Other(Consumed::Failed((&error).into()))),
        }
        Ok(())
    }

    fn revoked(&self, places: Vec<Place>, deadline: Duration) {
        if !places.is_empty() {
            self.hand(Item::Other(Consumed::Revoked { partitions: named(places), deadline }));
        }
    }

    fn hand(&self, item: Item) {
        // An application that is gone ends the commands, too.
        let _gone = self.items.send(item);
    }

    fn tell(&self, state: &ReaderState) {
        if let Some(hook) = &self.options.on_state {
            hook(state);
        }
    }
}

/// Leaves, and waits until the server has said so or the stream is over.
async fn leave(line: &mut Line) {
    line.say(Say::Leave(v1::ConsumeLeave {}));
    let over = async { while let Ok(Some(_)) = line.messages.next().await {} };
    // Who does not hear is out after the session timeout.
    let _late = tokio::time::timeout(super::CLOSE, over).await;
}

fn beat(period: Duration) -> tokio::time::Interval {
    let mut beat = tokio::time::interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.reset(); // the first tick of an interval is at once
    beat
}

/// Partitions as messages name them.
pub(super) fn named(places: Vec<Place>) -> Vec<v1::TopicPartition> {
    places.into_iter().map(|(topic, partition)| v1::TopicPartition { topic, partition }).collect()
}
