//! Reading one key out of a large topic: by the server's index of keys, against a client that reads all of it and keeps what it
//! wants. The built server is used as a person would; the events are flights, the key is the aircraft, and each key comes
//! about as often as an aircraft flies in a year.
//!
//! Told are the two times and their ratio, the size of the index beside the log's and its bound, and the rate of publishing with
//! and without the indexing behind it.
//!
//! `cargo bench --bench keyed` (10 million events, 1.5 GB below `TMPDIR`); `-- --events 1000000` for fewer; with another build:
//! `ANNALS_BIN=target/release/annals`

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a bench: what does not hold must stop it"
)]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use annals_client::{Client, FetchOptions, Filter, NewRecord, Position, ProducerOptions, v1};

/// Aircraft in the year of flights that the repository's data is cut from.
const AIRCRAFT: u64 = 4_000;
const LOOKS: usize = 5;

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(data: &Path, indexed: bool) -> Self {
        let binary = std::env::var_os("ANNALS_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_annals").into());
        let mut command = Command::new(binary);
        command.args(["serve", "--grpc", "127.0.0.1:0", "-f", "json", "--data"]).arg(data);
        if !indexed {
            command.env("ANNALS_STORAGE_INDEX_BYTES_PER_SECOND", "0");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = ready["grpc"].as_str().unwrap_or_default().to_owned();
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The aircraft of the n-th event: each about as often as any other, in no order.
fn aircraft(n: u64) -> u64 {
    let mixed = (n ^ n >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ mixed >> 32) % AIRCRAFT
}

fn key(aircraft: u64) -> String {
    format!("N{:05}", 10_000 + aircraft)
}

/// Publishes the events; how long that took.
async fn publish(client: &Client, events: u64) -> Duration {
    let config = v1::TopicConfig { partitions: 1, ..v1::TopicConfig::default() };
    client.create_topic("flights", config).await.unwrap();
    let producer = client.producer("flights", ProducerOptions::default()).await.unwrap();
    let began = Instant::now();
    for n in 0..events {
        let key = key(aircraft(n));
        let value = format!(
            r#"{{"flight":{n},"carrier":"UA","origin":"EWR","dest":"IAH","dep_delay":{},"arr_delay":{},"distance":1400}}"#,
            n % 90,
            n % 60
        );
        let _ack = producer.send(&NewRecord::new(&value).key(&key)).await.unwrap();
    }
    producer.close().await.unwrap();
    began.elapsed()
}

/// Reads the topic from its beginning; how many records of a key came, and how many others.
async fn read(client: &Client, wanted: &str, filter: Option<Filter>) -> (u64, u64) {
    let end = client.list_offsets("flights", &[0], None).await.unwrap().first().unwrap().latest_offset;
    let options = FetchOptions { filter, ..FetchOptions::default() };
    let mut at = Position { topic: "flights".into(), partition: 0, next_offset: 0, last_epoch: None };
    let (mut found, mut others) = (0, 0);
    while at.next_offset < end {
        let fetched = client.fetch(std::slice::from_ref(&at), &options).await.unwrap();
        let records = fetched.slices.first().unwrap();
        for batch in records.batches() {
            for record in batch.unwrap().records() {
                if record.unwrap().key == Some(wanted.as_bytes()) {
                    found += 1;
                } else {
                    others += 1;
                }
            }
        }
        at.next_offset = records.next_offset();
    }
    (found, others)
}

/// Bytes of the files below a directory, by their ending, and how many there are.
fn sizes(dir: &Path, ending: &str) -> (u64, u64) {
    let (mut bytes, mut files) = (0, 0);
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            let below = sizes(&path, ending);
            (bytes, files) = (bytes + below.0, files + below.1);
        } else if path.extension().is_some_and(|found| found == ending) {
            (bytes, files) = (bytes + entry.metadata().unwrap().len(), files + 1);
        }
    }
    (bytes, files)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap()
}

fn main() {
    let asked = std::env::args().skip_while(|argument| argument != "--events").nth(1);
    // `cargo test --benches` runs it, too, once and shortly: only `cargo bench` says that it is one.
    let short = std::env::args().all(|argument| argument != "--bench");
    let events = asked.map_or(if short { 20_000 } else { 10_000_000 }, |events| events.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rates = Vec::new();
    for (name, indexed) in [("without", false), ("with", true)] {
        let data = folder.path().join(name);
        let server = Server::start(&data, indexed);
        let client = runtime.block_on(Client::connect(&server.address)).unwrap();
        let took = runtime.block_on(publish(&client, events));
        rates.push(events as f64 / took.as_secs_f64());
        println!("published {name:>7} indexing     {:>12.0} events/s", rates.last().unwrap());
        if indexed {
            looked(&runtime, &client, &data, events);
        }
        drop(server);
        fs::remove_dir_all(&data).unwrap();
    }
    println!("indexing costs                 {:>12.1} %", (1.0 - rates[1] / rates[0]) * 100.0);
}

fn looked(runtime: &tokio::runtime::Runtime, client: &Client, data: &Path, events: u64) {
    // All sealed segments have their index, each its file; the last one is open.
    let began = Instant::now();
    while sizes(data, "keys").1 < sizes(data, "index").1 {
        assert!(began.elapsed() < Duration::from_secs(600), "the indexes are not made");
        std::thread::sleep(Duration::from_millis(50));
    }
    let ((log, _), (index, segments)) = (sizes(data, "log"), sizes(data, "keys"));
    let bound = (log / 20).max(12 * AIRCRAFT * segments);
    println!(
        "log {:.1} MB, index of {segments} sealed segments {:.1} MB: {:.2} % of it (at most {:.1} MB)",
        log as f64 / 1e6,
        index as f64 / 1e6,
        index as f64 / log as f64 * 100.0,
        bound as f64 / 1e6
    );
    assert!(index <= bound + 64 * segments);
    let (mut scans, mut looks, mut records) = (Vec::new(), Vec::new(), 0);
    for look in 0..LOOKS {
        let wanted = key(look as u64 * 797 % AIRCRAFT);
        let began = Instant::now();
        let (by_scan, _) = runtime.block_on(read(client, &wanted, None));
        scans.push(began.elapsed());
        let began = Instant::now();
        let (by_key, others) = runtime.block_on(read(client, &wanted, Some(Filter::key(wanted.clone()))));
        looks.push(began.elapsed());
        assert_eq!((by_key, others), (by_scan, 0));
        records += by_key;
    }
    let (scan, look) = (median(scans), median(looks));
    println!("{} records of one key among {events}", records / LOOKS as u64);
    println!("client's scan                  {:>12.1} ms", scan.as_secs_f64() * 1e3);
    println!("by key                         {:>12.1} ms", look.as_secs_f64() * 1e3);
    println!("ratio                          {:>12.1}", scan.as_secs_f64() / look.as_secs_f64());
}
