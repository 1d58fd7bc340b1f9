//! Durable unary produce, 64 requests in flight, over 1 and over 100 partitions, in one run: what the journal promises is
//! the ratio. Beside them the machine's own limit: one 4 KiB write and flush into a pre-written file at a time.
//!
//! `cargo bench --bench partitions`

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a bench: what does not hold must stop it"
)]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use annals::server::{Config, Flags, start};
use annals_client::Client;
use annals_wire::v1::{self, producer_service_client::ProducerServiceClient};

const IN_FLIGHT: usize = 64;
const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() {
    // `cargo test --benches` runs it, too: once, shortly.
    let short = std::env::args().any(|argument| argument == "--test");
    let round = if short { Duration::from_millis(50) } else { ROUND };
    let dir = tempfile::tempdir().unwrap();
    let flags =
        Flags { data: Some(dir.path().join("data")), grpc: Some("127.0.0.1:0".into()), ..Flags::default() };
    let server = start(Config::load(&flags, &|_| None).unwrap()).await.unwrap();
    let client = Client::connect(&server.address().to_string()).await.unwrap();
    let stub = ProducerServiceClient::connect(format!("http://{}", server.address())).await.unwrap();
    for (topic, partitions) in [("one", 1), ("many", 100)] {
        let config = v1::TopicConfig { partitions, ..Default::default() };
        client.create_topic(topic, config).await.unwrap();
    }
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..if short { 1 } else { ROUNDS } {
        for (index, (topic, partitions)) in [("one", 1), ("many", 100)].into_iter().enumerate() {
            rates[index].push(run(stub.clone(), topic, partitions, round).await);
        }
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let [one, many] = rates.each_mut().map(median);
    let flushes = flush_rate(dir.path().join("probe"), round);
    println!("1 partition      {one:>9.0} requests/s");
    println!("100 partitions   {many:>9.0} requests/s   {:.2} of one", many / one);
    println!("machine          {flushes:>9.0} writes of 4 KiB and flushes/s, one at a time");
    server.shutdown().await.unwrap();
}

async fn run(
    stub: ProducerServiceClient<tonic::transport::Channel>,
    topic: &'static str,
    partitions: u32,
    round: Duration,
) -> f64 {
    let began = Instant::now();
    let tasks: Vec<_> = (0..IN_FLIGHT)
        .map(|task| {
            let mut stub = stub.clone();
            tokio::spawn(async move {
                let value = bytes::Bytes::from(vec![b'v'; 100]);
                let mut done = 0_u64;
                let mut partition = u32::try_from(task).unwrap() % partitions;
                while began.elapsed() < round {
                    let record = v1::Record { value: Some(value.clone()), ..Default::default() };
                    let request = v1::ProduceRequest {
                        topic: topic.into(),
                        partition: Some(partition),
                        records: vec![record],
                        ..Default::default()
                    };
                    stub.produce(request).await.unwrap();
                    partition = (partition + 37) % partitions;
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    done as f64 / began.elapsed().as_secs_f64()
}

fn flush_rate(path: PathBuf, round: Duration) -> f64 {
    let file = OpenOptions::new().create_new(true).write(true).open(path).unwrap();
    let block = [7; 4096];
    for index in 0..1024 {
        file.write_at(&block, index * 4096).unwrap();
    }
    file.sync_all().unwrap();
    let began = Instant::now();
    let mut done = 0_u64;
    while began.elapsed() < round {
        file.write_at(&block, done % 1024 * 4096).unwrap();
        file.sync_data().unwrap();
        done += 1;
    }
    done as f64 / began.elapsed().as_secs_f64()
}
