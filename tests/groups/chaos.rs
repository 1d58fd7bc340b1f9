//! Members killed, stopped and added every second, the broker killed again and again: each record is delivered, in order within
//! each tenure; no committed offset is lost or moved back; no zombie's commit is accepted; and soon after the last fault every
//! partition has an owner that moves.
//!
//! Twelve seconds unless `ANNALS_CHAOS_SECONDS` says otherwise; the full form is 120.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use annals_client::{Client, NewRecord, ProduceOptions, v1};

use crate::{
    member::{GROUP, Member, Said, TOPIC},
    site::{Site, connect, now},
};

const MEMBERS: usize = 8;
const PARTITIONS: u32 = 64;

/// Everything that is known, held against itself as it comes.
#[derive(Default)]
struct Truth {
    /// By partition and epoch: who, where it was given, where the next delivery has to begin.
    tenures: BTreeMap<(i64, i64), (String, i64, i64)>,
    /// Highest acked commit of each tenure.
    acked: BTreeMap<(i64, i64), i64>,
    /// What was delivered of each partition, as ranges.
    delivered: BTreeMap<i64, Vec<(i64, i64)>>,
    committed: BTreeMap<u32, i64>,
    counts: BTreeMap<char, usize>,
}

impl Truth {
    fn hear(&mut self, said: &Said) {
        *self.counts.entry(said.what).or_default() += 1;
        match (said.what, said.numbers.as_slice()) {
            ('A', [partition, epoch, start]) => {
                let tenure = (said.member.clone(), *start, *start);
                let before = self.tenures.insert((*partition, *epoch), tenure);
                assert!(before.is_none(), "an epoch was given twice: {said:?} after {before:?}");
            }
            ('D', [partition, epoch, first, next]) => {
                let tenure = self.tenures.get_mut(&(*partition, *epoch));
                let (owner, _, due) =
                    tenure.unwrap_or_else(|| panic!("records without an assignment: {said:?}"));
                assert_eq!(*owner, said.member, "{said:?}");
                assert_eq!(*first, *due, "out of order within its tenure: {said:?}");
                *due = *next;
                self.delivered.entry(*partition).or_default().push((*first, *next));
            }
            ('C', [partition, epoch, next]) => {
                let acked = self.acked.entry((*partition, *epoch)).or_default();
                *acked = (*acked).max(*next);
            }
            ('F', _) => {}
            _ => panic!("{}: {}", said.member, said.line),
        }
    }

    /// What the server says is committed never moves back, and holds what was acked.
    fn look(&mut self, offsets: &[v1::CommittedOffset], acked: &BTreeMap<(i64, i64), i64>) {
        for offset in offsets {
            let before = self.committed.insert(offset.partition, offset.next_offset).unwrap_or(0);
            assert!(
                offset.next_offset >= before,
                "{}: {} after {before}",
                offset.partition,
                offset.next_offset
            );
        }
        for ((partition, _), acked) in acked {
            let committed = self.committed.get(&u32::try_from(*partition).unwrap()).copied().unwrap_or(0);
            assert!(committed >= *acked, "{partition}: acked at {acked}, stands at {committed}");
        }
    }

    /// A tenure begins behind every commit of those before it: a commit that a zombie got through would lie beyond.
    fn no_zombies(&self) {
        for ((partition, epoch), (_, start, _)) in &self.tenures {
            for ((of, before), acked) in &self.acked {
                if of == partition && before < epoch {
                    assert!(
                        acked <= start,
                        "{partition}: epoch {before} committed {acked}, {epoch} began at {start}"
                    );
                }
            }
        }
        for ((partition, epoch), acked) in &self.acked {
            let (_, start, due) = &self.tenures[&(*partition, *epoch)];
            assert!((start..=due).contains(&acked), "{partition} under {epoch}: {acked} of {start}..{due}");
        }
    }

    /// Every offset below the end was delivered.
    fn everything(&self, ends: &[v1::PartitionOffsets]) -> u64 {
        let mut records = 0;
        for end in ends {
            let mut ranges = self.delivered.get(&end.partition.into()).cloned().unwrap_or_default();
            ranges.sort_unstable();
            let mut covered = 0;
            for (first, next) in ranges {
                assert!(first <= covered, "{}: {covered}..{first} was never delivered", end.partition);
                covered = covered.max(next);
            }
            assert_eq!(covered, end.latest_offset, "partition {}", end.partition);
            records += u64::try_from(covered).unwrap();
        }
        records
    }
}

/// Writes to every partition in turn until it is told to stop; returns rounds done.
async fn write(client: Client, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        round(&client).await;
    }
}

/// Three records to each partition; a server that is not there gets them another time.
async fn round(client: &Client) {
    for partition in 0..PARTITIONS {
        let records: Vec<_> = (0..3).map(|_| NewRecord::new("x")).collect();
        let options = ProduceOptions { partition: Some(partition), ..ProduceOptions::default() };
        if client.produce(TOPIC, &records, options).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Small numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

struct Crowd {
    members: Vec<Member>,
    stopped: Vec<(Duration, Member)>,
    made: usize,
    server: String,
    said: Sender<Said>,
}

impl Crowd {
    fn add(&mut self) {
        self.made += 1;
        self.members.push(Member::start(&format!("m{}", self.made), &self.server, self.said.clone()));
    }

    /// One fault: a member is killed and comes back under its name, or is killed for good and another comes, or is stopped
    /// for longer than its session.
    fn fault(&mut self, dice: &mut Dice) {
        let member = self.members.swap_remove(dice.below(self.members.len()));
        match dice.below(3) {
            0 => {
                let name = member.name.clone();
                drop(member);
                self.members.push(Member::start(&name, &self.server, self.said.clone()));
            }
            1 => {
                drop(member);
                self.add();
            }
            _ => {
                member.signal("-STOP");
                self.stopped.push((now() + Duration::from_millis(2_500), member));
            }
        }
        while self.members.len() < MEMBERS - 2 {
            self.add();
        }
    }

    /// Wakes those that were stopped for long enough.
    fn wake(&mut self, all: bool) {
        let time = now();
        let (due, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.stopped).into_iter().partition(|(until, _)| all || *until <= time);
        self.stopped = still;
        for (_, member) in due {
            member.signal("-CONT");
            self.members.push(member);
        }
    }
}

fn seconds() -> u64 {
    std::env::var("ANNALS_CHAOS_SECONDS").map_or(12, |text| text.parse().unwrap())
}

async fn prepare(client: &Client) {
    let config = v1::TopicConfig { partitions: PARTITIONS, ..Default::default() };
    client.create_topic(TOPIC, config).await.unwrap();
    let config = v1::GroupConfig {
        heartbeat_interval_ms: 500,
        session_timeout_ms: 1_500,
        revoke_timeout_ms: 1_000,
        ..Default::default()
    };
    client.create_group(GROUP, config).await.unwrap();
}

fn drain(truth: &mut Truth, heard: &Receiver<Said>) {
    while let Ok(said) = heard.try_recv() {
        truth.hear(&said);
    }
}

async fn look(truth: &mut Truth, client: &Client, heard: &Receiver<Said>) {
    drain(truth, heard);
    // What was acked before the question has to be in its answer.
    let acked = truth.acked.clone();
    if let Ok(offsets) = client.offsets(GROUP, &[]).await {
        truth.look(&offsets, &acked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_every_record_is_delivered_and_no_commit_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::start(dir.path());
    let client = site.client().await;
    prepare(&client).await;
    let (said, heard) = channel();
    let mut crowd = Crowd { members: Vec::new(), stopped: Vec::new(), made: 0, server: site.address(), said };
    (0..MEMBERS).for_each(|_| crowd.add());
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(connect(&site.address()).await, Arc::clone(&stop)));
    let mut truth = Truth::default();
    let mut dice = Dice(7);
    let full = seconds() >= 60;
    let (mut kills, mut faults) = (0, 0);
    for second in 1..=seconds() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        crowd.fault(&mut dice);
        crowd.wake(false);
        faults += 1;
        if second % (if full { 10 } else { 5 }) == 0 {
            site.crash();
            kills += 1;
        }
        look(&mut truth, &client, &heard).await;
    }
    // From here on nothing goes wrong: what was stopped goes on.
    crowd.wake(true);
    let last_fault = now();
    let before: BTreeMap<u32, i64> = truth.committed.clone();
    let all_move = loop {
        look(&mut truth, &client, &heard).await;
        let moved = |partition| truth.committed.get(&partition) > before.get(&partition);
        if (0..PARTITIONS).all(moved) {
            break now().saturating_sub(last_fault);
        }
        assert!(now().saturating_sub(last_fault) < Duration::from_secs(30), "some partitions do not move");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let ends = client.list_offsets(TOPIC, &[], None).await.unwrap();
    let until = now() + Duration::from_secs(60);
    loop {
        look(&mut truth, &client, &heard).await;
        if ends.iter().all(|end| truth.committed.get(&end.partition) == Some(&end.latest_offset)) {
            break;
        }
        assert!(now() < until, "not everything is committed: {:?}", truth.committed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drain(&mut truth, &heard);
    let records = truth.everything(&ends);
    truth.no_zombies();
    eprintln!(
        "{records} records, {faults} faults of members, {kills} of the broker, every partition moved {all_move:?} after the last; {:?}",
        truth.counts
    );
    assert!(truth.counts[&'C'] > 100, "hardly anything was committed: {:?}", truth.counts);
    if full {
        assert!(all_move <= Duration::from_secs(3), "{all_move:?}");
    }
}
