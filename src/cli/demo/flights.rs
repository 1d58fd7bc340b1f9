//! The events: flights that left New York's airports on the first of January 2013.

use serde::Deserialize;

use crate::cli::exit::{Exit, Failure};

const DAY: &str = include_str!("../../../data/flights-2013-01-01.ndjson");

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// The line, as it is published.
    pub(super) line: &'static str,
    /// The aircraft.
    pub(super) key: String,
}

/// What a person wants to see of an event.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) timestamp: String,
    pub(super) origin: String,
    pub(super) dest: String,
    pub(super) delay_min: Option<f64>,
}

#[derive(Deserialize)]
struct Keyed {
    key: String,
}

/// The day's events, in order of time.
pub(super) fn day() -> Result<Vec<Event>, Failure> {
    DAY.lines()
        .map(|line| match serde_json::from_str::<Keyed>(line) {
            Ok(Keyed { key }) => Ok(Event { line, key }),
            Err(error) => {
                Err(Failure::new(Exit::Failed, format!("the embedded events are damaged: {error}")))
            }
        })
        .collect()
}

/// The aircraft with the most events of the day.
pub(super) fn busiest(events: &[Event]) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for event in events.iter().filter(|event| event.key.starts_with('N')) {
        *counts.entry(&event.key).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(key, _)| key.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_is_whole() {
        let events = day().unwrap();
        assert_eq!(events.len(), 1195);
        assert!(events.iter().all(|event| serde_json::from_str::<Shown>(event.line).is_ok()));
        let busiest = busiest(&events);
        assert!(events.iter().filter(|event| event.key == busiest).count() >= 6, "{busiest}");
    }
}
