//! The course of a test: lives of the broker, each ended by SIGKILL under load, each begun with a check of what the one
//! before had acked.
//!
//! ```text
//! start -> check tails, commits -> load -> kill -9 -> start -> ...        every tenth kill: a storm of starts, each killed
//!                                                                         within 50 ms
//! enough written:  what has no ack is sent again -> check the whole topic -> delete it, make the next
//! ```
//!
//! A kill counts if it took the answers of events that were under way.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use annals_client::{Backoff, Client, ClientOptions, v1};

use super::{
    consumers,
    event::mix,
    findings::Findings,
    journal::Entry,
    ledger::{Ledger, is_streaming},
    producers::{Lived, Repeating, Streaming},
    reading,
    report::Tally,
    world::{Life, World},
};
use crate::{
    cli::{
        broker::{Broker, Starting},
        exit::{Exit, Failure},
        progress::Progress,
    },
    clock::{Clock as _, SystemClock},
    sync::{Arc, Mutex},
};

/// Partitions of the topic.
pub(super) const PARTITIONS: u32 = 4;
/// Small, so that segments are sealed and followed by others all the time.
const SEGMENT_BYTES: i64 = 1 << 20;
/// Bytes of events at which the topic is checked as a whole, deleted and followed by another.
const ROUND_BYTES: u64 = 256 << 20;
/// Kills between two storms, starts of a storm, and the longest that one of them lives.
const STORM_EVERY: u32 = 10;
const STORM_STARTS: u32 = 20;
const STORM_LIFE: Duration = Duration::from_millis(50);
/// What a task may take to notice that its broker is dead.
const PATIENCE: Duration = Duration::from_secs(30);

/// When it is enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Enough {
    pub(super) kills: Option<u32>,
    pub(super) duration: Option<Duration>,
}

/// A producer, with what it remembers.
#[derive(Debug)]
enum Producer {
    Streaming(Streaming),
    Repeating(Repeating),
}

impl Producer {
    async fn live(mut self, life: Life) -> (Self, Lived) {
        let lived = match &mut self {
            Self::Streaming(streaming) => streaming.live(&life).await,
            Self::Repeating(repeating) => repeating.live(&life).await,
        };
        (self, lived)
    }
}

/// Conducts one test.
#[derive(Debug)]
pub(super) struct Conductor {
    pub(super) world: Arc<World>,
    pub(super) tally: Arc<Mutex<Tally>>,
    pub(super) directory: PathBuf,
    pub(super) enough: Enough,
    pub(super) progress: Progress,
    clock: SystemClock,
    drawn: u64,
    producers: Vec<Producer>,
    life: u32,
    round: u32,
    topic_made: bool,
}

impl Conductor {
    pub(super) fn new(
        world: Arc<World>,
        tally: Arc<Mutex<Tally>>,
        directory: &Path,
        enough: Enough,
        progress: Progress,
    ) -> Self {
        let clock = SystemClock::new();
        Self {
            drawn: world.run,
            producers: producers(world.producers),
            world,
            tally,
            directory: directory.to_owned(),
            enough,
            progress,
            clock,
            life: 0,
            round: 1,
            topic_made: false,
        }
    }

    /// Until it is enough, a promise is broken, or something fails; then the last check.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        self.tell(Entry::Round(self.round)).await?;
        let mut lives = 0;
        while !self.is_enough() && self.is_clean() {
            if self.world.listener_is_gone() {
                return Err(Failure::new(Exit::Unavailable, "the listener is gone"));
            }
            let counted = self.live_and_die().await?;
            lives += 1;
            let kills = self.tally.lock().kills;
            if counted && kills.is_multiple_of(STORM_EVERY) {
                self.storm().await?;
            }
            if lives > 10 * (kills + 10) {
                let what = format!("only {kills} of {lives} kills hit events under way");
                return Err(Failure::new(Exit::Failed, what));
            }
        }
        if self.tally.lock().storm_kills == 0 {
            self.storm().await?;
        }
        let mut broker = self.start().await?;
        let client = self.connect(&broker).await?;
        self.close_round(&client).await?;
        broker.kill()
    }

    fn is_enough(&self) -> bool {
        let kills = self.tally.lock().kills;
        self.world.stopped()
            || self.enough.kills.is_some_and(|most| kills >= most)
            || self.enough.duration.is_some_and(|most| self.clock.monotonic() >= most)
    }

    fn is_clean(&self) -> bool {
        self.world.ledger.lock().findings.is_clean() && self.world.so_far.lock().is_clean()
    }

    /// A number below `most`.
    fn draw(&mut self, most: u64) -> u64 {
        self.drawn = mix(self.drawn);
        self.drawn % most.max(1)
    }

    fn topic(&self) -> String {
        format!("crash-test-{}", self.round)
    }

    async fn start(&self) -> Result<Broker, Failure> {
        let starting =
            Starting::spawn(&self.data(), "127.0.0.1:0", Some(&self.directory.join("broker.log")))?;
        let broker = starting.ready().await.map_err(|failure| {
            failure.next(format!("What it said is in {}", self.directory.join("broker.log").display()))
        })?;
        let mut tally = self.tally.lock();
        let took = Duration::from_secs_f64(broker.ready.recovery.milliseconds / 1e3);
        tally.recoveries_ms.push(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        tally.cut_bytes += broker.ready.recovery.cut;
        drop(tally);
        Ok(broker)
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    async fn connect(&self, broker: &Broker) -> Result<Client, Failure> {
        let options = ClientOptions { connect: Backoff::NEVER, backoff: Backoff::NEVER };
        Ok(Client::connect_with(&broker.ready.grpc, options).await?)
    }

    /// One life, from start to kill. Whether the kill counts.
    async fn live_and_die(&mut self) -> Result<bool, Failure> {
        let mut broker = self.start().await?;
        let client = self.connect(&broker).await?;
        if self.topic_made {
            self.check(&client).await?;
            let bytes = self.world.ledger.lock().findings.bytes;
            if bytes >= ROUND_BYTES && self.is_clean() {
                self.next_round(&client).await?;
            }
            if !self.is_clean() {
                return Ok(false);
            }
        }
        self.make_topic(&client).await?;
        let life = self.begin_life(client, false);
        let load = self.begin_load(&life);
        // Different moments of the journal's cycles, mostly early ones.
        let most = if self.draw(10) < 7 { 120 } else { 500 };
        let until = Duration::from_millis(5 + self.draw(most));
        tokio::time::sleep(until).await;
        for _ in 0..200 {
            if self.world.under_way() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        broker.kill()?;
        let lived = self.end_load(load).await?;
        let unknown: u64 = lived.iter().map(|lived| lived.unknown).sum();
        let counted = unknown > 0 && !self.world.stopped();
        let mut tally = self.tally.lock();
        tally.unknown += unknown;
        tally.lives += 1;
        tally.kills += u32::from(counted);
        if !self.world.stopped() {
            tally.refusals.extend(lived.into_iter().filter_map(|lived| lived.refused).take(3));
        }
        self.progress.add(u64::from(counted));
        let acked = self.world.ledger.lock().findings.acked + self.world.so_far.lock().acked;
        self.progress.say(|| format!("{acked} events acked"));
        Ok(counted)
    }

    fn begin_life(&mut self, client: Client, finish: bool) -> Life {
        self.life += 1;
        let topic = self.topic().into();
        Life { world: Arc::clone(&self.world), client, topic, number: self.life, finish }
    }

    fn begin_load(&mut self, life: &Life) -> Load {
        let producers = std::mem::take(&mut self.producers);
        Load {
            producers: producers
                .into_iter()
                .map(|producer| tokio::spawn(producer.live(life.clone())))
                .collect(),
            consumers: (0..self.world.consumers)
                .map(|consumer| tokio::spawn(consumers::live(life.clone(), consumer)))
                .collect(),
        }
    }

    /// The broker is dead: whoever talked to it notices, and tells what it saw.
    async fn end_load(&mut self, load: Load) -> Result<Vec<Lived>, Failure> {
        let late = || Failure::new(Exit::Failed, "a client did not notice that its broker is dead");
        let broken = |error| Failure::new(Exit::Failed, format!("a client failed: {error}"));
        let mut all = Vec::new();
        for producer in load.producers {
            let ended = tokio::time::timeout(PATIENCE, producer).await.map_err(|_| late())?;
            let (producer, lived) = ended.map_err(broken)?;
            self.producers.push(producer);
            all.push(lived);
        }
        for consumer in load.consumers {
            // It ends with an error: the broker went away.
            let _ = tokio::time::timeout(PATIENCE, consumer).await.map_err(|_| late())?.map_err(broken)?;
        }
        Ok(all)
    }

    /// Tails and commits, nobody writing.
    async fn check(&mut self, client: &Client) -> Result<(), Failure> {
        let mut ledger = self.take_ledger();
        let topic = self.topic();
        let group = |consumer| format!("{topic}-{consumer}");
        let mut checked = reading::tail(client, &topic, &mut ledger, false).await;
        if checked.is_ok() {
            let consumers = self.world.consumers;
            checked = reading::commits(client, group, consumers, &topic, &mut ledger, None).await;
        }
        *self.world.ledger.lock() = ledger;
        checked
    }

    /// For as long as a check takes; the lock is not held meanwhile.
    fn take_ledger(&self) -> Ledger {
        std::mem::replace(&mut *self.world.ledger.lock(), Ledger::new(0, 0, 0, 0))
    }

    /// What has no ack is sent again; then all of the topic is read.
    async fn close_round(&mut self, client: &Client) -> Result<(), Failure> {
        if !self.topic_made {
            return Ok(());
        }
        self.check(client).await?;
        if self.is_clean() {
            let life = self.begin_life(client.clone(), true);
            let producers = std::mem::take(&mut self.producers);
            for producer in producers {
                let (producer, lived) = producer.live(life.clone()).await;
                self.producers.push(producer);
                if let Some(refused) = lived.refused {
                    return Err(Failure::new(Exit::Failed, format!("an event was refused: {refused}")));
                }
            }
            self.check(client).await?;
        }
        let mut ledger = self.take_ledger();
        let whole = reading::whole(client, &self.topic(), &mut ledger).await;
        self.world.so_far.lock().add(&ledger.findings);
        self.world.evidence.lock().append(&mut ledger.evidence);
        ledger.findings = Findings::default();
        *self.world.ledger.lock() = ledger;
        whole
    }

    async fn next_round(&mut self, client: &Client) -> Result<(), Failure> {
        self.close_round(client).await?;
        if !self.is_clean() {
            return Ok(());
        }
        let old = self.topic();
        self.round += 1;
        // Before the events go: the listener must not miss them.
        self.tell(Entry::Round(self.round)).await?;
        client.delete_topic(&old, None).await?;
        let world = &self.world;
        *world.ledger.lock() = Ledger::new(world.run, PARTITIONS, world.producers, world.consumers);
        self.producers = producers(world.producers);
        self.topic_made = false;
        self.tally.lock().rounds += 1;
        Ok(())
    }

    async fn make_topic(&mut self, client: &Client) -> Result<(), Failure> {
        let config = v1::TopicConfig {
            partitions: PARTITIONS,
            durability: self.world.level.into(),
            segment_bytes: Some(SEGMENT_BYTES),
            ..Default::default()
        };
        client.create_topic(&self.topic(), config).await?;
        self.topic_made = true;
        Ok(())
    }

    async fn tell(&self, entry: Entry) -> Result<(), Failure> {
        let Some(journal) = &self.world.journal else { return Ok(()) };
        journal.tell(entry);
        if journal.settle().await {
            Ok(())
        } else {
            Err(Failure::new(Exit::Unavailable, "the listener is gone"))
        }
    }

    /// Starts that are killed at once, most of them in the middle of their recovery.
    async fn storm(&mut self) -> Result<(), Failure> {
        for _ in 0..STORM_STARTS {
            let log = self.directory.join("broker.log");
            let starting = Starting::spawn(&self.data(), "127.0.0.1:0", Some(&log))?;
            let most = u64::try_from(STORM_LIFE.as_millis()).unwrap_or(50);
            let until = Duration::from_millis(self.draw(most));
            tokio::time::sleep(until).await;
            starting.kill()?;
            self.tally.lock().storm_kills += 1;
            if self.world.stopped() {
                break;
            }
        }
        Ok(())
    }
}

/// Who talks to a broker in one life.
struct Load {
    producers: Vec<tokio::task::JoinHandle<(Producer, Lived)>>,
    consumers: Vec<tokio::task::JoinHandle<annals_client::Result<()>>>,
}

fn producers(count: u32) -> Vec<Producer> {
    (0..count)
        .map(|number| {
            if is_streaming(number) {
                Producer::Streaming(Streaming::new(number, PARTITIONS))
            } else {
                Producer::Repeating(Repeating::new(number))
            }
        })
        .collect()
}
