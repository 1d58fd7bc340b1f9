//! The meaning of produce, fetch and commit.
//!
//! The broker decides; [`storage`](crate::storage) orders and keeps; [`state`](crate::state) is the truth that is not
//! records. Doors translate between `types` and their protocol and do nothing else.
//!
//! ```text
//!   produce --> checks, partitions (gather) --> room --> storage.append ----> ack when durable
//!   step --> the two together, in one frame
//!   commit, create, delete --> room --> lock, decide, storage.submit, apply --> answer when durable
//!   fetch, subscribe --> position --> partition.read --> trimmed slices; waiters when there is nothing
//! ```
//!
//! Rules of the room:
//!
//! 1. **Decide, enqueue and apply under the same locks**, so the order of the journal is the order in which the state
//!    changed. Every object keeps the number of its last entry, and an answer, a refusal, a duplicate or an event waits
//!    until the highest entry it read is durable.
//! 2. **Room in the journal comes before the first lock** and nobody waits under one. Order of locks: requests,
//!    producers and their gates, groups, sessions, topics, then (inside storage) partitions ascending.
//! 3. **Topics are looked up without a lock** (`catalog`). A topic can be deleted between look-up and append; storage
//!    refuses the append then, and the call starts over.
//! 4. **No wake-up is missed** (`waiters`): ask the version, look, register with that version.
//! 5. A call that is dropped half-way leaves nothing behind: what is not appended gives its room back, what is appended
//!    stays, registrations end with their reader.
//! 6. Everything that clients could make grow is bounded by [`Limits`].

mod catalog;
mod commits;
mod config;
mod error;
mod fetch;
mod filter;
mod gather;
mod groups;
mod inbox;
mod members;
mod nearest;
mod offsets;
mod once;
mod outputs;
mod page;
mod position;
mod produce;
mod producers;
mod rates;
mod read;
mod reset;
mod settle;
mod shadow;
mod sift;
mod sorter;
mod step;
mod subscribe;
mod topics;
mod types;
mod waiters;

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::sync::watch;

pub use config::{Config, Limits, TopicDefaults};
pub use error::Error;
pub use filter::Filter;
pub use groups::{GroupChange, GroupInfo, MemberInfo, OwnedPartition};
pub use members::{AssignedPartition, Consumption, Join, MemberEvent, MemberHandle, Place};
pub use produce::PendingAck;
pub use rates::{GroupStats, Latency, Rate, Stats, StatsSelection, TopicStats};
pub use reset::{OffsetMove, Reset, ResetTo};
pub use shadow::{Shadow, ShadowRange};
pub use step::Step;
pub use subscribe::Subscription;
pub use types::*;

use crate::{
    clock::Clock,
    state::{Groups, Producers, Requests, State, Topics},
    storage::{Disk, OpenError, Options, Report, Runner, Section, Storage},
    sync::{Arc, AtomicUsize, Mutex, Ordering, thread::JoinHandle},
};
use catalog::Catalog;
use members::{Beat, Keeper, Sessions};
use producers::Holders;
use rates::Rates;

/// When to come back after a refusal that heals by itself.
const RETRY_SOON: Duration = Duration::from_millis(200);
/// When to come back if the disk is full.
const RETRY_FULL: Duration = Duration::from_secs(1);

/// Reasons told at a time.
const MOST_REASONS: usize = 20;

/// How long the end of the broker waits for those who are storing records, and how often it looks.
const STOP_WAITS: u32 = 1000;
const STOP_WAIT: Duration = Duration::from_millis(1);

/// The state, each part behind a lock of its own. Locked in this order.
#[derive(Debug)]
struct Truth {
    requests: Mutex<Requests>,
    producers: Mutex<Producers>,
    groups: Mutex<Groups>,
    /// What of the groups a restart may forget.
    sessions: Mutex<Sessions>,
    topics: Mutex<Topics>,
}

impl Truth {
    /// For a snapshot: one part after the other, each locked only as long as it takes to clone pointers.
    fn capture(&self) -> Vec<Section> {
        let requests = self.requests.lock().freeze();
        let producers = self.producers.lock().freeze();
        let groups = self.groups.lock().freeze();
        let topics = self.topics.lock().freeze();
        [requests, groups, topics].into_iter().chain(producers).map(crate::state::Frozen::section).collect()
    }
}

/// All there is between the doors and the disk.
#[derive(Debug)]
pub struct Broker {
    storage: Arc<Storage>,
    clock: Arc<dyn Clock>,
    config: Config,
    truth: Arc<Truth>,
    catalog: Catalog,
    holders: Holders,
    rates: Rates,
    /// Time as sessions count it.
    beat: Beat,
    keeper: Keeper,
    /// Set once, with the time streams have left.
    drain: watch::Sender<Option<Duration>>,
    /// Reads that may wait.
    waiting: Arc<AtomicUsize>,
    /// Calls between their first check and their append.
    storing: Arc<AtomicUsize>,
}

/// A broker whose storage commits.
#[derive(Debug)]
pub struct Running {
    broker: Arc<Broker>,
    runner: Runner,
    groups: JoinHandle<()>,
}

impl Running {
    /// Ends it: what was taken is committed, the last snapshot written. Blocks.
    pub fn stop(self) {
        self.broker.drain(Duration::ZERO);
        // Who had been let in before that gets its records stored, so that storage closes behind the last of them.
        for _ in 0..STOP_WAITS {
            if self.broker.storing.load(Ordering::SeqCst) == 0 {
                break;
            }
            std::thread::sleep(STOP_WAIT);
        }
        self.broker.keeper.stop();
        self.groups.join().expect("the groups' thread does not panic");
        self.runner.stop();
    }
}

impl Broker {
    /// Recovers what `disk` holds. Nothing is committed, so no call is answered, before [`Broker::start`].
    ///
    /// # Errors
    /// Why the directory cannot be served; nothing was written then.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: Options,
        config: Config,
    ) -> Result<(Arc<Self>, Report), OpenError> {
        let mut state = State::default();
        let (storage, report) = Storage::open(disk, Arc::clone(&clock), options, &mut state)?;
        let beat = Beat::new(&*clock);
        let sessions = Sessions::restored(&state.groups, beat.now());
        let broker = Self {
            beat,
            keeper: Keeper::default(),
            catalog: Catalog::new(&state.topics, &storage),
            holders: Holders::new(&state.producers, &storage),
            storage,
            rates: Rates::new(Arc::clone(&clock)),
            clock,
            config,
            truth: Arc::new(Truth {
                requests: Mutex::new(state.requests),
                producers: Mutex::new(state.producers),
                groups: Mutex::new(state.groups),
                sessions: Mutex::new(sessions),
                topics: Mutex::new(state.topics),
            }),
            drain: watch::Sender::new(None),
            waiting: Arc::default(),
            storing: Arc::default(),
        };
        Ok((Arc::new(broker), report))
    }

    /// Starts the storage's threads.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(self: &Arc<Self>) -> std::io::Result<Running> {
        let truth = Arc::clone(&self.truth);
        let runner = self.storage.start(Arc::new(move || truth.capture()))?;
        let groups = Keeper::start(self)?;
        Ok(Running { broker: Arc::clone(self), runner, groups })
    }

    /// Bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Identity of the cluster, 16 bytes.
    pub fn cluster_id(&self) -> [u8; 16] {
        self.storage.cluster_id()
    }

    /// From now on produce answers SHUTTING_DOWN, long polls end early, and subscriptions say
    /// [`SubEvent::Drain`] once. Commits and reads go on. Only the first call counts.
    pub fn drain(&self, deadline: Duration) {
        self.drain.send_if_modified(|drain| {
            let first = drain.is_none();
            if first {
                *drain = Some(deadline);
            }
            first
        });
    }

    /// Whether [`Broker::drain`] was called.
    pub fn draining(&self) -> bool {
        self.drain.borrow().is_some()
    }

    /// Returns once [`Broker::drain`] was called.
    pub async fn until_drained(&self) {
        // The sender lives in the broker, so this is never its end.
        let mut drain = self.drain.subscribe();
        let _called = drain.wait_for(Option::is_some).await;
    }

    /// Bytes that were read could not be sent: they are verified again before they are served again.
    pub fn distrust(&self) {
        self.storage.distrust();
    }

    /// Why the journal takes nothing any more, if so.
    pub fn failure(&self) -> Option<&str> {
        self.storage.failure()
    }

    /// How it is.
    pub fn health(&self) -> Health {
        if let Some(reason) = self.storage.failure() {
            return Health::Failed { reason: reason.to_owned() };
        }
        if self.draining() {
            return Health::Draining;
        }
        let mut reasons = Vec::new();
        for topic in self.catalog.all() {
            for lane in &topic.lanes {
                let place = || format!("{}[{}]", topic.name(), lane.partition.key().partition);
                if let Some(why) = lane.partition.fenced_because() {
                    reasons.push(format!("{} takes no more records until a restart: {why}", place()));
                }
                for (first, last) in lane.partition.damages() {
                    reasons.push(format!("{}: offsets {first} to {last} are damaged", place()));
                }
                if reasons.len() >= MOST_REASONS {
                    return Health::Degraded { reasons };
                }
            }
        }
        if reasons.is_empty() { Health::Serving } else { Health::Degraded { reasons } }
    }

    /// Counts a read that may wait, as long as the guard lives.
    fn enter_waiting(&self) -> Result<Entered, Error> {
        let limit = self.config.limits.max_waiting;
        let entered = Entered::new(&self.waiting);
        if entered.before >= usize::try_from(limit).unwrap_or(usize::MAX) {
            return Err(Error::Throttled { retry_delay: RETRY_SOON });
        }
        Ok(entered)
    }

    /// Lets a call in that stores records, unless the broker goes away. Counted first, so that who ends the broker either
    /// sees it or is seen by it.
    fn enter_storing(&self) -> Result<Entered, Error> {
        let entered = Entered::new(&self.storing);
        if self.draining() {
            return Err(Error::ShuttingDown { retry_delay: RETRY_SOON });
        }
        Ok(entered)
    }
}

/// Counted, as long as it lives.
#[derive(Debug)]
struct Entered {
    count: Arc<AtomicUsize>,
    before: usize,
}

impl Entered {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        let before = count.fetch_add(1, Ordering::SeqCst);
        Self { count: Arc::clone(count), before }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}
