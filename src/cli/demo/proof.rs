//! The claims, and how each is checked: against what the broker serves, not against what the demo remembers.

use std::collections::BTreeMap;

use annals_client::{Client, FetchOptions, Position, Start};
use bytes::Bytes;

use super::{
    Group, TOPIC,
    flights::{Event, Shown, busiest},
    group::Done,
    publisher::Acked,
    story::Story,
};
use crate::cli::exit::Failure;

/// A record as the broker serves it.
struct Served {
    key: Option<Bytes>,
    value: Option<Bytes>,
}

/// Everything in the topic, by partition and offset.
async fn read_all(client: &Client) -> Result<BTreeMap<(u32, i64), Served>, Failure> {
    let mut positions = client.positions(TOPIC, &[], &Start::Earliest).await?;
    let mut all = BTreeMap::new();
    loop {
        let fetched = client.fetch(&positions, &FetchOptions::default()).await?;
        if let Some(failed) = fetched.failures.into_iter().next() {
            return Err(failed.error.into());
        }
        let mut more = Vec::new();
        for records in &fetched.slices {
            for batch in records.batches() {
                let batch = batch?;
                for record in batch.records() {
                    let record = record?;
                    let served = Served {
                        key: record.key.map(|key| batch.share(key)),
                        value: record.value.map(|value| batch.share(value)),
                    };
                    all.insert((records.partition(), record.offset), served);
                }
            }
            if records.next_offset() < records.high_watermark() {
                more.push(Position {
                    topic: TOPIC.to_owned(),
                    partition: records.partition(),
                    next_offset: records.next_offset(),
                    last_epoch: None,
                });
            }
        }
        if more.is_empty() {
            return Ok(all);
        }
        positions = more;
    }
}

/// Counts the acks whose offset holds their event.
fn in_place(all: &BTreeMap<(u32, i64), Served>, events: &[Event], acked: &[Acked]) -> usize {
    let holds = |(event, ack): &(&Event, &Acked)| {
        let served = all.get(&(ack.partition, ack.offset));
        served.is_some_and(|served| {
            served.value.as_deref() == Some(event.line.as_bytes())
                && served.key.as_deref() == Some(event.key.as_bytes())
        })
    };
    events.iter().zip(acked).filter(holds).count()
}

/// After the restart: what was acked before the kill is at its offset.
pub(super) async fn acked_are_there(
    story: &mut Story,
    client: &Client,
    events: &[Event],
    acked: &[Acked],
) -> Result<(), Failure> {
    let all = read_all(client).await?;
    let found = in_place(&all, events, acked);
    story.claim(found == acked.len(), format!("{found} of {} acked events at their offsets", acked.len()))
}

/// After the restart: each group stands where its last acked commit put it.
pub(super) async fn groups_stand(
    story: &mut Story,
    client: &Client,
    groups: &[Group],
    stood: &[Done],
) -> Result<(), Failure> {
    for (group, done) in groups.iter().zip(stood) {
        let offsets = client.offsets(group.name, &[TOPIC]).await?;
        let stands: BTreeMap<u32, i64> = offsets.iter().map(|at| (at.partition, at.next_offset)).collect();
        // A commit whose ack the kill took away may have counted.
        let kept =
            done.committed.iter().all(|(partition, next)| stands.get(partition).is_some_and(|at| at >= next));
        let sum: i64 = stands.values().sum();
        story.claim(kept, format!("group {} stands at {sum}: no commit lost", group.name))?;
    }
    Ok(())
}

/// At the end: every event once, where its ack said.
pub(super) async fn each_once(
    story: &mut Story,
    client: &Client,
    events: &[Event],
    acked: &[Acked],
) -> Result<(), Failure> {
    let all = read_all(client).await?;
    let found = in_place(&all, events, acked);
    let once = all.len() == events.len() && found == events.len();
    story.claim(
        once,
        format!("{} events published, {} stored, each once and at its offset", events.len(), all.len()),
    )?;
    let repeated = acked.iter().filter(|ack| ack.duplicate).count();
    if repeated > 0 {
        story.say(format!(
            "      {repeated} had been stored when the kill took its ack: sent again, not stored again"
        ))?;
    }
    Ok(())
}

/// At the end: a group went on at its next event, and saw every one.
pub(super) fn group_missed_nothing(
    story: &mut Story,
    group: &Group,
    stood: &Done,
    total: usize,
) -> Result<(), Failure> {
    let done = group.done.borrow().clone();
    let next =
        |partition: &u32, first: &i64| *first >= stood.committed.get(partition).copied().unwrap_or_default();
    let contiguous = |first: i64, before: Option<&Vec<i64>>| {
        // Nothing between what was handled before the kill and where the group went on.
        before.and_then(|offsets| offsets.iter().max()).map_or(first == 0, |last| first <= last + 1)
    };
    let went_on = done
        .first
        .iter()
        .all(|(partition, first)| next(partition, first) && contiguous(*first, stood.handled.get(partition)));
    story.claim(went_on, format!("group {} went on at its next event", group.name))?;
    let mut handled = 0;
    let mut again = 0;
    for offsets in done.handled.values() {
        let unique: std::collections::BTreeSet<i64> = offsets.iter().copied().collect();
        handled += unique.len();
        again += offsets.len() - unique.len();
    }
    let text = format!(
        "group {} handled all {total} events ({again} twice: handled, killed before the commit)",
        group.name
    );
    story.claim(handled == total, text)
}

/// One aircraft's day from the log, as it was published.
pub(super) async fn replay(story: &mut Story, client: &Client, events: &[Event]) -> Result<(), Failure> {
    let key = busiest(events);
    let all = read_all(client).await?;
    let replayed: Vec<&Bytes> = all
        .values()
        .filter(|served| served.key.as_deref() == Some(key.as_bytes()))
        .filter_map(|served| served.value.as_ref())
        .collect();
    let published: Vec<&str> =
        events.iter().filter(|event| event.key == key).map(|event| event.line).collect();
    for line in &replayed {
        if let Ok(event) = serde_json::from_slice::<Shown>(line) {
            let delay = event.delay_min.map(|delay| format!("{delay:+} min")).unwrap_or_default();
            story.say(format!(
                "  {}  {:<16}  {:<7}  {} -> {}  {delay}",
                event.timestamp, event.kind, event.name, event.origin, event.dest
            ))?;
        }
    }
    let same = replayed.len() == published.len()
        && replayed
            .iter()
            .zip(&published)
            .all(|(replayed, published)| replayed.as_ref() == published.as_bytes());
    story.claim(same, format!("{} events of {key}, in the order they were published", replayed.len()))
}
