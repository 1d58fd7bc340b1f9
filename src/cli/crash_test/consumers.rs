//! Readers that commit: each has a group of its own, reads all partitions from where it stands, looks at every byte, and
//! commits what it has read. It lives as long as the broker does.

use std::time::Duration;

use annals_client::{FetchOptions, Position, Records, Start};
use bytes::BytesMut;

use super::{event::Event, world::Life};

/// Reads and commits until the broker is gone.
pub(super) async fn live(life: Life, consumer: u32) -> annals_client::Result<()> {
    let group = life.group(consumer);
    let start = Start::CommittedBy(group.clone());
    let mut positions = life.client.positions(&life.topic, &[], &start).await?;
    let options =
        FetchOptions { max_wait: Duration::from_millis(50), max_bytes: 256 << 10, ..FetchOptions::default() };
    let mut scratch = BytesMut::new();
    loop {
        // Commits are resolved where they are read, so from here on it goes by offsets.
        let fetched = life.client.fetch(&positions, &options).await?;
        if let Some(failed) = fetched.failures.into_iter().next() {
            return Err(failed.error);
        }
        let mut commits = Vec::new();
        for records in fetched.slices.iter().filter(|records| records.next_offset() > records.start_offset())
        {
            look(&life, records, &mut scratch)?;
            life.world.ledger.lock().has_read(records.partition(), records.next_offset());
            commits.push(records.commit_position(records.next_offset()));
        }
        positions = fetched.slices.iter().map(|records| behind(&life, records)).collect();
        if commits.is_empty() {
            continue;
        }
        let attempted: Vec<(u32, i64)> =
            commits.iter().map(|commit| (commit.partition, commit.next_offset)).collect();
        for (partition, next_offset) in &attempted {
            life.world.ledger.lock().commit_attempted(consumer, *partition, *next_offset);
        }
        life.client.commit(&group, commits).await?;
        for (partition, next_offset) in attempted {
            life.world.commit_acked(consumer, partition, next_offset);
        }
    }
}

fn behind(life: &Life, records: &Records) -> Position {
    Position {
        topic: life.topic.to_string(),
        partition: records.partition(),
        next_offset: records.next_offset(),
        last_epoch: None,
    }
}

/// Offsets without holes, every byte right.
fn look(life: &Life, records: &Records, scratch: &mut BytesMut) -> annals_client::Result<()> {
    let (mut expected, mut holes, mut altered) = (records.start_offset(), 0, 0);
    for batch in records.batches() {
        for record in batch?.records() {
            let record = record?;
            holes += u64::from(record.offset != expected);
            expected = record.offset + 1;
            let event = record.value.and_then(|value| Event::read(value, scratch));
            let right = event
                .is_some_and(|event| event.run == life.world.run && event.partition == records.partition());
            altered += u64::from(!right);
        }
    }
    holes += u64::from(expected != records.next_offset());
    if holes + altered > 0 {
        let findings = &mut life.world.ledger.lock().findings;
        findings.holes += holes;
        findings.altered += altered;
    }
    Ok(())
}
