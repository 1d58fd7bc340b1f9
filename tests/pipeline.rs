//! A pipeline of three stages, every process of it killed at random: what comes out is what one thread would have made.
//!
//! ```text
//!   a day of flights -> flights -> [stage 1] -> legs -> [stage 2] -> visits -> [stage 3] -> late
//! ```
//!
//! Two processes do each stage. They know nothing of each other and share no partitions out: each reads where the group
//! stands, and does a step for it (`AppendAndCommit`); of two that do the same one is told that it was too late. A round
//! brings some more flights, then a process of a stage is killed with -9 and started again, in some rounds the server too.
//! The flights come from a producer that lives through it all and sends again what got no answer.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has to fail"
)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use annals_client::{
    Backoff, Client, ClientOptions, Error, FetchOptions, NewRecord, ProducerOptions, Start, reason, v1,
};

#[path = "support/python.rs"]
mod python;

const DAY: &str = include_str!("../data/flights-2013-01-01.ndjson");
const STAGES: [(&str, &str); 3] = [("flights", "legs"), ("legs", "visits"), ("visits", "late")];
const PARTITIONS: u32 = 3;
const ROUNDS: usize = 12;
/// Tells a process of this test that it is a stage, which, and where the server is.
const STAGE: &str = "ANNALS_TEST_STAGE";
const ADDRESS: &str = "ANNALS_TEST_ADDRESS";

/// What a record becomes in a stage.
fn process(stage: usize, key: &str, value: &str) -> Vec<(String, String)> {
    let words: Vec<&str> = value.split(' ').collect();
    match (stage, &words[..]) {
        (1, _) => {
            let flight: serde_json::Value = serde_json::from_str(value).unwrap();
            let (origin, dest) = (flight["origin"].as_str().unwrap(), flight["dest"].as_str().unwrap());
            let delay = flight["delay_min"].as_i64().unwrap_or_default();
            vec![(key.to_owned(), format!("{origin} {dest} {delay}"))]
        }
        (2, [origin, dest, delay]) => {
            let visit = |what: &str, airport: &str| (key.to_owned(), format!("{what} {airport} {delay}"));
            vec![visit("departs", origin), visit("arrives", dest)]
        }
        (3, [what, airport, delay]) if delay.parse::<i64>().unwrap() > 15 => {
            vec![(format!("{key}@{airport}"), (*what).to_owned())]
        }
        _ => Vec::new(),
    }
}

/// What one thread makes of the day, by key and in order.
fn expected() -> BTreeMap<String, Vec<String>> {
    let mut out = BTreeMap::<_, Vec<_>>::new();
    for line in DAY.lines() {
        let mut records = vec![(key_of(line), line.to_owned())];
        for stage in 1..=STAGES.len() {
            records = records.iter().flat_map(|(key, value)| process(stage, key, value)).collect();
        }
        for (key, value) in records {
            out.entry(key).or_default().push(value);
        }
    }
    out
}

fn key_of(line: &str) -> String {
    let flight: serde_json::Value = serde_json::from_str(line).unwrap();
    flight["key"].as_str().unwrap().to_owned()
}

async fn connect(address: &str) -> Client {
    let patient =
        Backoff { attempts: 200, first: Duration::from_millis(20), longest: Duration::from_millis(100) };
    let options = ClientOptions { connect: patient, backoff: patient };
    Client::connect_with(address, options).await.unwrap()
}

/// A process of a stage, until it is killed. As a test it has nothing to do.
#[tokio::test]
async fn a_stage_of_the_pipeline() {
    let Ok(stage) = std::env::var(STAGE) else {
        assert_eq!(process(3, "N1", "departs EWR 16"), [("N1@EWR".to_owned(), "departs".to_owned())]);
        return;
    };
    let stage: usize = stage.parse().unwrap();
    let client = connect(&std::env::var(ADDRESS).unwrap()).await;
    let mut pause = Dice(std::process::id().into());
    loop {
        match step(&client, stage).await {
            Ok(()) => {}
            // Somebody else of the group was faster; or nobody answered for a long time. Either way: where does it stand?
            Err(error) if error.reason() == reason::EXPECTED_OFFSET_MISMATCH || error.is_temporary() => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(pause.below(10))).await;
    }
}

async fn step(client: &Client, stage: usize) -> Result<(), Error> {
    let ((source, sink), group) = (STAGES[stage - 1], format!("stage-{stage}"));
    let from = client.positions(source, &[], &Start::CommittedBy(group.clone())).await?;
    let options =
        FetchOptions { max_wait: Duration::from_millis(50), max_bytes: 1, ..FetchOptions::default() };
    for records in client.fetch(&from, &options).await?.slices {
        let mut step = client.step();
        for batch in records.batches() {
            for record in batch?.records() {
                let record = record?;
                let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                for (key, value) in process(stage, &text(record.key), &text(record.value)) {
                    step.push(sink, &NewRecord::new(&value).key(&key))?;
                }
            }
        }
        if records.next_offset() > records.start_offset() {
            step.commit(&group, records.processed());
            client.append_and_commit(step).await?;
        }
    }
    Ok(())
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Something that can be killed, and is when the test ends.
struct Process(Child);

impl Process {
    fn of(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn server(folder: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
    command.args(["serve", "--grpc", &address(folder), "--data"]).arg(folder.join("data"));
    Process::of(command)
}

fn address(folder: &Path) -> String {
    format!("unix:{}", folder.join("socket").display())
}

/// Runs the day through stages that `worker` makes commands of.
async fn run_the_day(folder: &Path, worker: impl Fn(usize) -> Command) {
    let mut broker = server(folder);
    let client = connect(&address(folder)).await;
    for topic in ["flights", "legs", "visits", "late"] {
        let config = v1::TopicConfig { partitions: PARTITIONS, ..Default::default() };
        client.create_topic(topic, config).await.unwrap();
    }
    let patient =
        Backoff { attempts: 1000, first: Duration::from_millis(20), longest: Duration::from_millis(50) };
    let options = ProducerOptions { batch_bytes: 1500, backoff: patient, ..ProducerOptions::default() };
    let flights = client.producer("flights", options).await.unwrap();
    let stages = || [1, 1, 2, 2, 3, 3].into_iter();
    let mut workers: Vec<Process> = stages().map(|stage| Process::of(worker(stage))).collect();
    let (lines, mut dice) = (DAY.lines().collect::<Vec<_>>(), Dice(7));
    for (round, lines) in lines.chunks(lines.len().div_ceil(ROUNDS)).enumerate() {
        for line in lines {
            flights.send(&NewRecord::new(*line).key(&key_of(line))).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50 + dice.below(150))).await;
        if round % 3 == 2 {
            broker.kill();
            broker = server(folder);
        }
        let victim = usize::try_from(dice.below(6)).unwrap();
        workers[victim].kill();
        workers[victim] = Process::of(worker(stages().nth(victim).unwrap()));
    }
    flights.close().await.unwrap();
    let done = async {
        while !all_is_processed(&client).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(240), done).await.expect("it goes on");
    drop(workers);
    let legs: usize = all(&client, "legs").await.values().map(Vec::len).sum();
    let visits: usize = all(&client, "visits").await.values().map(Vec::len).sum();
    assert_eq!((legs, visits), (lines.len(), 2 * lines.len()));
    assert_eq!(all(&client, "late").await, expected());
}

async fn all_is_processed(client: &Client) -> bool {
    for (stage, (source, _)) in (1..).zip(STAGES) {
        let ends = client.list_offsets(source, &[], None).await.unwrap();
        let committed = client.offsets(&format!("stage-{stage}"), &[]).await.unwrap();
        let is_done = |end: &v1::PartitionOffsets| {
            let stands = committed.iter().find(|committed| committed.partition == end.partition);
            end.latest_offset == stands.map_or(0, |committed| committed.next_offset)
        };
        if !ends.iter().all(is_done) {
            return false;
        }
    }
    true
}

/// All records of a topic, by key and in order.
async fn all(client: &Client, topic: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for mut position in client.positions(topic, &[], &Start::Earliest).await.unwrap() {
        loop {
            let fetched = client.fetch(&[position.clone()], &FetchOptions::default()).await.unwrap();
            let records = &fetched.slices[0];
            for batch in records.batches() {
                for record in batch.unwrap().records() {
                    let record = record.unwrap();
                    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                    found.entry(text(record.key)).or_default().push(text(record.value));
                }
            }
            if records.next_offset() == position.next_offset {
                break;
            }
            position.next_offset = records.next_offset();
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_stages_killed_at_random_make_what_one_thread_makes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let worker = |stage: usize| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_stage_of_the_pipeline"]);
        command.env(STAGE, stage.to_string()).env(ADDRESS, address(&path));
        command
    };
    run_the_day(&path, worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_of_a_stock_python_stub_make_the_same() {
    if !python::wanted() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let stubs: PathBuf = path.join("stubs");
    std::fs::create_dir(&stubs).unwrap();
    python::generate_stubs(&stubs);
    let worker = |stage: usize| {
        let mut command = Command::new(python::python());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/external/pipeline.py"));
        command.args([&address(&path), &stage.to_string()]).env("PYTHONPATH", &stubs);
        command
    };
    run_the_day(&path, worker).await;
}

/// A producer through kill after kill: every record is stored, once, where its ack says, in its partition's order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_stores_everything_once_however_often_the_server_is_killed() {
    // A kill that finds no answer on its way proves nothing. That all eight do happens now and then.
    for _ in 0..10 {
        if duplicates_through_kills().await > 0 {
            return;
        }
    }
    panic!("no answer got lost: the kills hit nothing");
}

/// How many records were stored before their producer, having heard nothing, sent them again.
async fn duplicates_through_kills() -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = server(folder.path());
    let client = connect(&address(folder.path())).await;
    let config = v1::TopicConfig { partitions: PARTITIONS, ..Default::default() };
    client.create_topic("t", config).await.unwrap();
    let patient =
        Backoff { attempts: 1000, first: Duration::from_millis(10), longest: Duration::from_millis(50) };
    let options = ProducerOptions {
        batch_bytes: 400,
        max_in_flight_bytes: 100_000,
        backoff: patient,
        ..ProducerOptions::default()
    };
    let producer = client.producer("t", options).await.unwrap();
    let (mut acks, mut duplicates) = (Vec::new(), 0);
    for number in 0..20_000_u32 {
        let key = (number % 50).to_string();
        acks.push((
            key.clone(),
            producer.send(&NewRecord::new(&number.to_string()).key(&key)).await.unwrap(),
        ));
        if number % 2500 == 2499 {
            broker.kill();
            broker = server(folder.path());
        }
    }
    producer.close().await.unwrap();
    let mut sent = BTreeMap::<_, Vec<_>>::new();
    for (number, (key, ack)) in acks.into_iter().enumerate() {
        duplicates += u32::from(ack.await.unwrap().duplicate);
        sent.entry(key).or_default().push(number.to_string());
    }
    assert_eq!(all(&client, "t").await, sent);
    duplicates
}
