//! What lies between a member's ears, its mouth and the coordinator. Bounded: news by the partitions of the group, acks by
//! [`MOST_ACKS`], pauses by the partitions owned.

use std::collections::{BTreeSet, VecDeque};

use tokio::sync::Notify;

use super::{
    super::{Error, inbox::Inbox},
    member::Join,
};
use crate::{
    storage::PartitionKey,
    sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering},
};

/// Commits that may wait for their answer; then no further one is heard.
pub(crate) const MOST_ACKS: usize = 4096;
/// More credit than this counts as this much.
const MOST_CREDIT: u64 = 1 << 40;
/// What the inbox calls the desk itself.
pub(crate) const NEWS: usize = usize::MAX;

/// Something the coordinator decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Partitions given, each with its epoch.
    Assigned { number: u64, generation: u32, keys: Vec<(PartitionKey, u32)> },
    /// Partitions to hand over, until this time; `None` = they are lost already.
    Revoked { number: u64, keys: Vec<PartitionKey>, until: Option<u64> },
}

/// The answer to a commit.
#[derive(Clone, Debug)]
pub(crate) struct Ack {
    pub(crate) commit_id: u64,
    /// The entry to wait for.
    pub(crate) number: u64,
    pub(crate) refused: Option<Error>,
}

/// How a membership ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The member left; the entry to wait for.
    Left(u64),
    /// Somebody else decided it.
    Out(Error),
}

#[derive(Debug, Default)]
struct Papers {
    news: VecDeque<News>,
    acks: VecDeque<Ack>,
    paused: BTreeSet<PartitionKey>,
    resumed: Vec<PartitionKey>,
    end: Option<End>,
}

/// A member's desk, as long as its stream lasts.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) group: Arc<str>,
    pub(crate) member: Arc<str>,
    /// Where it calls from, for people.
    pub(crate) peer: Arc<str>,
    /// When it was heard last, on the beat.
    heard: AtomicU64,
    /// Bytes it has room for.
    credit: AtomicU64,
    papers: Mutex<Papers>,
    /// The mouth's.
    inbox: Arc<Inbox>,
    /// An ack was told.
    told: Notify,
    /// The journal takes nothing more: what is not durable never will be told.
    cut: AtomicBool,
}

impl Desk {
    pub(crate) fn new(join: &Join, member: &Arc<str>, now: u64, inbox: Arc<Inbox>) -> Self {
        Self {
            group: Arc::clone(&join.group),
            member: Arc::clone(member),
            peer: Arc::clone(&join.peer),
            heard: AtomicU64::new(now),
            credit: AtomicU64::new(0),
            papers: Mutex::default(),
            inbox,
            told: Notify::new(),
            cut: AtomicBool::new(false),
        }
    }

    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    pub(crate) fn hear(&self, now: u64) {
        self.heard.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    pub(crate) fn wake(&self) {
        self.inbox.put(NEWS);
    }

    pub(crate) fn tell(&self, news: News) {
        self.papers.lock().news.push_back(news);
        self.wake();
    }

    pub(crate) fn news(&self) -> Option<News> {
        self.papers.lock().news.pop_front()
    }

    /// Only the first end counts.
    pub(crate) fn end(&self, end: End) {
        self.papers.lock().end.get_or_insert(end);
        self.wake();
        self.told.notify_one();
    }

    pub(crate) fn ended(&self) -> Option<End> {
        self.papers.lock().end.clone()
    }

    pub(crate) fn credit(&self) -> u64 {
        self.credit.load(Ordering::Relaxed)
    }

    pub(crate) fn add_credit(&self, bytes: u64) {
        let added = |credit: u64| Some(credit.saturating_add(bytes).min(MOST_CREDIT));
        let before = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
        if before == Ok(0) {
            self.wake();
        }
    }

    /// A message may be larger than what was left: what it was too large by is not owed.
    pub(crate) fn take_credit(&self, bytes: u64) {
        let taken = |credit: u64| Some(credit.saturating_sub(bytes));
        // The closure never refuses.
        let _before = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
    }

    pub(crate) fn pause(&self, keys: impl IntoIterator<Item = PartitionKey>) {
        self.papers.lock().paused.extend(keys);
    }

    pub(crate) fn resume(&self, keys: impl IntoIterator<Item = PartitionKey>) {
        let mut papers = self.papers.lock();
        for key in keys {
            if papers.paused.remove(&key) {
                papers.resumed.push(key);
            }
        }
        drop(papers);
        self.wake();
    }

    pub(crate) fn is_paused(&self, key: PartitionKey) -> bool {
        self.papers.lock().paused.contains(&key)
    }

    pub(crate) fn resumed(&self) -> Vec<PartitionKey> {
        std::mem::take(&mut self.papers.lock().resumed)
    }

    /// What is no longer owned is not paused either.
    pub(crate) fn forget(&self, keys: &[PartitionKey]) {
        let mut papers = self.papers.lock();
        for key in keys {
            papers.paused.remove(key);
        }
    }

    pub(crate) fn put_ack(&self, ack: Ack) {
        self.papers.lock().acks.push_back(ack);
        self.wake();
    }

    /// Number that the oldest ack waits for.
    pub(crate) fn ack_waits_for(&self) -> Option<u64> {
        self.papers.lock().acks.front().map(|ack| ack.number)
    }

    pub(crate) fn take_ack(&self) -> Option<Ack> {
        let ack = self.papers.lock().acks.pop_front();
        if ack.is_some() {
            self.told.notify_one();
        }
        ack
    }

    /// Waits until another commit may be heard.
    pub(crate) async fn room_for_ack(&self) {
        loop {
            let told = self.told.notified();
            {
                let papers = self.papers.lock();
                if papers.acks.len() < MOST_ACKS || papers.end.is_some() {
                    return;
                }
            }
            told.await;
        }
    }
}
