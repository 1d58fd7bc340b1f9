//! Filling a topic before it is read.

use std::time::Duration;

use annals_client::{NewRecord, ProducerOptions, v1};

use super::{payload::Payload, session::Session};
use crate::cli::{
    exit::{Exit, Failure},
    progress::Progress,
};

/// Publishes `volume` bytes in records of `record_bytes`, in batches of `batch_bytes`; all are acked when this returns.
pub(super) async fn fill(
    session: &Session,
    topic: &str,
    record_bytes: usize,
    volume: u64,
    batch_bytes: usize,
) -> Result<(), Failure> {
    let client = session.connect().await?;
    let options = ProducerOptions {
        batch_bytes,
        linger: Duration::from_millis(20),
        durability: v1::Durability::Os,
        stop_on_failure: true,
        ..ProducerOptions::default()
    };
    let producer = client.producer(topic, options).await?;
    let mut payload = Payload::new(&*session.clock, record_bytes, 1);
    let progress = Progress::bytes(Some(volume));
    progress.say(|| "filling the topic".to_owned());
    let records = volume / record_bytes as u64;
    for n in 0..records {
        producer.send(&NewRecord::new(payload.next())).await?;
        if n % 1000 == 999 {
            progress.add(1000 * record_bytes as u64);
        }
    }
    producer.close().await?;
    progress.clear();
    let stored: i64 = client
        .positions(topic, &[], &annals_client::Start::Latest)
        .await?
        .iter()
        .map(|at| at.next_offset)
        .sum();
    if u64::try_from(stored) != Ok(records) {
        let what = format!("{records} records were published to \"{topic}\", and it holds {stored}");
        return Err(Failure::new(Exit::Failed, what));
    }
    Ok(())
}
