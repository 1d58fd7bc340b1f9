//! Gives the oracle what the broker serves. Nobody writes meanwhile.

use annals_client::{Client, FetchOptions, Position, Records};

use super::ledger::{Ledger, Pass, Reading};
use crate::cli::exit::{Exit, Failure};

/// Reads what is new in every partition and compares every ack since the last time.
/// `may_end_early`: the topic's level lets a power cut take a tail.
pub(super) async fn tail(
    client: &Client,
    topic: &str,
    ledger: &mut Ledger,
    may_end_early: bool,
) -> Result<(), Failure> {
    for partition in 0..ledger.partitions() {
        late(client, topic, partition, ledger).await?;
        let mut reading = ledger.reading(partition, Pass::Tail);
        let read = read(client, topic, partition, &mut reading).await;
        let findings = if read.is_ok() { reading.end_of_tail(may_end_early) } else { reading.abandon() };
        ledger.note(findings);
        read?;
    }
    // Where a tail may be missing, requests may be cut in half.
    if !may_end_early {
        ledger.findings.half_requests = ledger.findings.half_requests.max(ledger.half_requests());
    }
    Ok(())
}

/// Acks of events that were read before.
async fn late(client: &Client, topic: &str, partition: u32, ledger: &mut Ledger) -> Result<(), Failure> {
    for acked in ledger.take_late(partition) {
        for (nth, offset) in (0..acked.count).zip(acked.base_offset..) {
            let position =
                Position { topic: topic.to_owned(), partition, next_offset: offset, last_epoch: None };
            let options = FetchOptions { max_bytes: 1, ..FetchOptions::default() };
            let fetched = client.fetch(&[position], &options).await?;
            let batch = fetched.slices.first().and_then(|records| records.batches().next()).transpose()?;
            let record = batch.as_ref().and_then(|batch| batch.records().next()).transpose()?;
            let value = record.filter(|record| record.offset == offset).and_then(|record| record.value);
            ledger.compare_late(&acked, nth, value);
        }
    }
    Ok(())
}

/// Reads all of every partition.
pub(super) async fn whole(client: &Client, topic: &str, ledger: &mut Ledger) -> Result<(), Failure> {
    let mut all = super::findings::Findings::default();
    for partition in 0..ledger.partitions() {
        let mut reading = ledger.reading(partition, Pass::Whole);
        read(client, topic, partition, &mut reading).await?;
        all.add(&reading.end_of_whole());
    }
    ledger.findings = ledger.findings.with_whole(&all);
    Ok(())
}

/// Where each consumer's group stands, held against what was acked.
pub(super) async fn commits(
    client: &Client,
    group: impl Fn(u32) -> String,
    consumers: u32,
    topic: &str,
    ledger: &mut Ledger,
    ends: Option<&[i64]>,
) -> Result<(), Failure> {
    for consumer in 0..consumers {
        let stands = match client.offsets(&group(consumer), &[topic]).await {
            Err(error) if error.is_not_found() => Vec::new(),
            other => other?,
        };
        for partition in 0..ledger.partitions() {
            let at = stands.iter().find(|stands| stands.partition == partition);
            let at = at.map_or(0, |stands| stands.next_offset);
            let end = ends.map(|ends| ends.get(partition as usize).copied().unwrap_or(0));
            ledger.committed(consumer, partition, at, end);
        }
    }
    Ok(())
}

async fn read(
    client: &Client,
    topic: &str,
    partition: u32,
    reading: &mut Reading<'_>,
) -> Result<(), Failure> {
    let options = FetchOptions { skip_damaged: true, ..FetchOptions::default() };
    loop {
        let position = Position {
            topic: topic.to_owned(),
            partition,
            next_offset: reading.next_offset(),
            last_epoch: None,
        };
        let fetched = client.fetch(&[position], &options).await;
        let fetched = match fetched {
            // The log ends before what was read of it already; the acks behind tell how much is gone.
            Err(error) if error.reason() == annals_client::reason::OFFSET_AHEAD => return Ok(()),
            Err(error) if error.reason() == annals_client::reason::TOPIC_NOT_FOUND => {
                reading.give_up(false);
                return Ok(());
            }
            other => other?,
        };
        if let Some(failed) = fetched.failures.first() {
            match failed.error.reason() {
                annals_client::reason::OFFSET_AHEAD => return Ok(()),
                annals_client::reason::TOPIC_NOT_FOUND => {
                    reading.give_up(false);
                    return Ok(());
                }
                annals_client::reason::CORRUPT_DATA => {
                    reading.give_up(true);
                    return Ok(());
                }
                _ => return Err(failed.error.clone().into()),
            }
        }
        let Some(records) = fetched.slices.first() else {
            return Err(Failure::new(Exit::Failed, "the broker's answer has no slice"));
        };
        let before = reading.next_offset();
        take(records, reading)?;
        if reading.next_offset() >= records.high_watermark() {
            return Ok(());
        }
        if reading.next_offset() == before {
            let what = format!("{topic}[{partition}] gives nothing at {before}, though there is more");
            return Err(Failure::new(Exit::Failed, what));
        }
    }
}

fn take(records: &Records, reading: &mut Reading<'_>) -> Result<(), Failure> {
    let mut gaps = records.gaps().iter().peekable();
    for batch in records.batches() {
        for record in batch?.records() {
            let record = record?;
            while let Some(gap) = gaps.next_if(|gap| gap.first_offset < record.offset) {
                reading.skip_to(gap.last_offset + 1, true);
            }
            reading.record(record.offset, record.value.unwrap_or_default());
        }
    }
    for gap in gaps {
        reading.skip_to(gap.last_offset + 1, true);
    }
    reading.skip_to(records.next_offset(), false);
    Ok(())
}
