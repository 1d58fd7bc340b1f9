//! A service that reads the events under a group's name: handles, then commits.

use std::{collections::BTreeMap, time::Duration};

use annals_client::{Backoff, Client, Event, ReaderOptions, Start};
use tokio::sync::watch;

use crate::{
    cli::exit::{Exit, Failure},
    clock::{Clock as _, SystemClock},
};

/// What a group has done, over all its lives.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    /// Offsets handled, in order, per partition; some again after a kill.
    pub(super) handled: BTreeMap<u32, Vec<i64>>,
    /// Committed: the offset each partition goes on with.
    pub(super) committed: BTreeMap<u32, i64>,
    /// First offset of each partition in the present life.
    pub(super) first: BTreeMap<u32, i64>,
    /// From append to commit, in milliseconds, of every committed event.
    pub(super) latencies_ms: Vec<i64>,
}

impl Done {
    /// Events whose commit was acked.
    pub(super) fn committed_records(&self) -> i64 {
        self.committed.values().sum()
    }
}

/// A life of the service: from where the group stands until all partitions together have `until` events committed, or
/// until the broker is gone.
pub(super) async fn live(
    client: Client,
    group: &'static str,
    topic: &'static str,
    handling: Duration,
    until: i64,
    done: watch::Sender<Done>,
) -> Result<(), Failure> {
    let start = client.positions(topic, &[], &Start::CommittedBy(group.to_owned())).await?;
    done.send_modify(|done| done.first.clear());
    let options = ReaderOptions { backoff: Backoff::NEVER, max_bytes: 8 << 10, ..ReaderOptions::default() };
    let mut reader = client.subscribe(start, options).await?;
    let clock = SystemClock::new();
    while done.borrow().committed_records() < until {
        let Some(event) = reader.next().await? else { break };
        let records = match event {
            Event::Records(records) => records,
            Event::CaughtUp { .. } => continue,
            Event::Failed(failed) => return Err(failed.error.into()),
        };
        let mut append_times = Vec::new();
        for batch in records.batches() {
            let batch = batch?;
            for record in batch.records() {
                let record = record?;
                tokio::time::sleep(handling).await;
                append_times.push(batch.append_time_ms());
                done.send_modify(|done| {
                    done.first.entry(records.partition()).or_insert(record.offset);
                    done.handled.entry(records.partition()).or_default().push(record.offset);
                });
            }
        }
        client.commit(group, vec![records.commit_position(records.next_offset())]).await?;
        let now = clock.wall_ms();
        done.send_modify(|done| {
            done.committed.insert(records.partition(), records.next_offset());
            done.latencies_ms.extend(append_times.iter().map(|time| now - time));
        });
    }
    if done.borrow().committed_records() < until {
        return Err(Failure::new(Exit::Failed, format!("group {group} stopped before the end")));
    }
    Ok(())
}
