//! Publishes the day, an event at a time, evenly paced.
//!
//! Each event is a call of its own with its own request id, so the one whose answer the kill takes away is simply sent
//! again: the broker knows whether it had stored it.

use std::{sync::Arc, time::Duration};

use annals_client::{Client, NewRecord, ProduceOptions};
use tokio::sync::watch;

use super::flights::Event;
use crate::cli::exit::{Exit, Failure};

/// Where an event was stored, as its ack said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    pub(super) partition: u32,
    pub(super) offset: i64,
    /// It was sent again, and the broker had stored it the first time.
    pub(super) duplicate: bool,
}

/// Publishes all events; `acked` grows with each ack, in their order.
pub(super) async fn publish(
    client: Client,
    topic: &'static str,
    events: Arc<[Event]>,
    pace: Duration,
    acked: watch::Sender<Vec<Acked>>,
) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for event in events.iter() {
        ticks.tick().await;
        let record = NewRecord::new(event.line).key(&event.key);
        let stored = client.produce(topic, &[record], ProduceOptions::default()).await?;
        let Some(append) = stored.appends.first() else {
            return Err(Failure::new(Exit::Failed, "an ack without a place"));
        };
        let duplicate = stored.duplicate || append.duplicate;
        let stored_at = Acked { partition: append.partition, offset: append.base_offset, duplicate };
        acked.send_modify(|acked| acked.push(stored_at));
    }
    Ok(())
}
