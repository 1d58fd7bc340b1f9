//! The load: producers of two kinds, see [`super::ledger`]. Each lives as long as the broker does; what it has to remember
//! from one life to the next is in its own struct or in the ledger.

use annals_client::{Backoff, Error, NewRecord, Outcome, ProduceOptions, ProducerOptions, RequestId};
use bytes::BytesMut;

use super::{
    event::Event,
    ledger::Acked,
    world::{Life, World},
};
use crate::sync::{Arc, Mutex};

/// Bytes of a batch, by producer: many small ones, some that fill a frame, and some that go past the journal.
const BATCH_BYTES: [usize; 3] = [4 << 10, 48 << 10, 512 << 10];

/// What a producer saw of a life.
#[derive(Clone, Debug, Default)]
pub(super) struct Lived {
    /// Events whose answer the broker took with it.
    pub(super) unknown: u64,
    /// What ended it, if that was not the broker's death.
    pub(super) refused: Option<String>,
}

impl Lived {
    fn note(&mut self, events: u64, error: &Error) {
        if is_unknown(error) {
            self.unknown += events;
        } else if !error.is_unreachable() && error.reason() != annals_client::reason::PRODUCER_CLOSED {
            self.refused.get_or_insert_with(|| error.to_string());
        }
    }
}

/// It was sent, and no answer came.
fn is_unknown(error: &Error) -> bool {
    error.is_outcome_unknown() || (!error.is_refusal() && !error.is_unreachable())
}

/// Sends on one stream to all partitions, as fast as it is taken.
#[derive(Debug)]
pub(super) struct Streaming {
    producer: u32,
    /// One above the highest sequence ever sent, by partition.
    next: Vec<u64>,
}

/// Sends one request after the other, an event to each partition, under a request id.
#[derive(Debug)]
pub(super) struct Repeating {
    producer: u32,
    sequence: u64,
    /// The life that the unanswered request was first sent in.
    pending: Option<u32>,
}

/// What the streaming producer's hook keeps.
struct Answers {
    world: Arc<World>,
    producer: u32,
    life: u32,
    /// The next sequence to be acked, by partition.
    next: Mutex<Vec<u64>>,
    lived: Mutex<Lived>,
}

impl Answers {
    fn outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Stored { append, .. } => {
                let mut next = self.next.lock();
                let Some(sequence) = next.get_mut(append.partition as usize) else { return };
                self.world.acked(Acked {
                    producer: self.producer,
                    partition: append.partition,
                    first_sequence: *sequence,
                    count: append.record_count,
                    life: self.life,
                    base_offset: append.base_offset,
                });
                *sequence += u64::from(append.record_count);
                self.world.answered(append.record_count.into());
            }
            Outcome::Failed { records, error } => {
                self.world.answered((*records).into());
                self.lived.lock().note((*records).into(), error);
            }
        }
    }
}

impl Streaming {
    pub(super) fn new(producer: u32, partitions: u32) -> Self {
        Self { producer, next: vec![0; partitions as usize] }
    }

    /// Until the broker is gone; or, in a life that finishes, until everything is acked.
    pub(super) async fn live(&mut self, life: &Life) -> Lived {
        let from: Vec<u64> = {
            let ledger = life.world.ledger.lock();
            (0..ledger.partitions()).map(|partition| ledger.unacked(self.producer, partition)).collect()
        };
        let answers = Arc::new(Answers {
            world: Arc::clone(&life.world),
            producer: self.producer,
            life: life.number,
            next: Mutex::new(from.clone()),
            lived: Mutex::default(),
        });
        let hook = Arc::clone(&answers);
        let size = BATCH_BYTES.get(self.producer as usize / 2 % BATCH_BYTES.len()).copied();
        let options = ProducerOptions {
            batch_bytes: size.unwrap_or(4 << 10),
            linger: std::time::Duration::from_millis(1),
            max_in_flight_bytes: 2 << 20,
            backoff: Backoff::NEVER,
            stop_on_failure: true,
            on_outcome: Some(Arc::new(move |outcome| hook.outcome(outcome))),
            ..ProducerOptions::default()
        };
        let mut lived = match life.client.producer(&life.topic, options).await {
            Ok(sender) => {
                self.send(life, &sender, from).await;
                // What failed has been told to the hook.
                let _ = sender.close().await;
                answers.lived.lock().clone()
            }
            Err(error) => {
                let mut lived = Lived::default();
                lived.note(0, &error);
                lived
            }
        };
        if life.finish && lived.refused.is_none() && lived.unknown > 0 {
            lived.refused = Some("the broker went away while nobody killed it".into());
        }
        lived
    }

    async fn send(&mut self, life: &Life, sender: &annals_client::Producer, mut cursor: Vec<u64>) {
        let mut bytes = BytesMut::new();
        let mut sent_any = true;
        while sent_any {
            sent_any = false;
            for (partition, (sequence, next)) in (0_u32..).zip(cursor.iter_mut().zip(self.next.iter_mut())) {
                if life.finish && *sequence >= *next {
                    continue;
                }
                let event = Event {
                    run: life.world.run,
                    producer: self.producer,
                    partition,
                    sequence: *sequence,
                    life: life.number,
                };
                event.write(&mut bytes);
                let record = NewRecord::new(&bytes).partition(partition);
                life.world.sent(1);
                if sender.send(&record).await.is_err() {
                    life.world.answered(1);
                    return;
                }
                *sequence += 1;
                *next = (*next).max(*sequence);
                sent_any = true;
            }
            life.room().await;
            tokio::task::yield_now().await;
        }
    }
}

impl Repeating {
    pub(super) fn new(producer: u32) -> Self {
        Self { producer, sequence: 0, pending: None }
    }

    /// Until the broker is gone; or, in a life that finishes, until the request that has no answer has one.
    pub(super) async fn live(&mut self, life: &Life) -> Lived {
        let mut lived = Lived::default();
        while !(life.finish && self.pending.is_none()) {
            life.room().await;
            let first_sent = *self.pending.get_or_insert(life.number);
            match self.request(life, first_sent).await {
                Ok(()) => {
                    self.pending = None;
                    self.sequence += 1;
                }
                Err(error) => {
                    lived.note(life.world.keys.len() as u64, &error);
                    break;
                }
            }
        }
        lived
    }

    async fn request(&self, life: &Life, first_sent: u32) -> Result<(), Error> {
        let world = &life.world;
        let mut values = Vec::with_capacity(world.keys.len());
        for partition in (0..).take(world.keys.len()) {
            let mut bytes = BytesMut::new();
            let event = Event {
                run: world.run,
                producer: self.producer,
                partition,
                sequence: self.sequence,
                life: first_sent,
            };
            event.write(&mut bytes);
            values.push(bytes);
        }
        let records: Vec<NewRecord<'_>> =
            values.iter().zip(&world.keys).map(|(value, key)| NewRecord::new(value).key(key)).collect();
        let id = format!("{}-{}-{}", life.topic, self.producer, self.sequence);
        let options = ProduceOptions { request_id: RequestId::Given(&id), ..ProduceOptions::default() };
        world.sent(records.len() as u64);
        let stored = life.client.produce(&life.topic, &records, options).await;
        world.answered(records.len() as u64);
        for append in stored?.appends {
            world.acked(Acked {
                producer: self.producer,
                partition: append.partition,
                first_sequence: self.sequence,
                count: append.record_count,
                life: first_sent,
                base_offset: append.base_offset,
            });
        }
        Ok(())
    }
}
