//! `annals log verify`: one verdict over a data directory.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{Opened, is_json, not_checked, open};
use crate::{
    cli::{
        exit::{Exit, Failure},
        format::Format,
        out::Out,
        progress::Progress,
        rows::{grouped, size},
    },
    state::State,
    storage::{self, Damage, Verdict},
};

/// Check everything a data directory holds: journal, snapshots, segments
///
/// Each damage is told with its file, position, offsets, and what it means. A directory that a server runs on is checked,
/// too: as far as its journal went when the check began. Ends with 0 if it is intact, 7 if something is damaged, 1 if it
/// could not be checked. Nothing is written.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals log verify ./annals-data")]
pub(super) struct Verify {
    /// The data directory
    directory: PathBuf,
    /// How to print: table or json (a line for each damage, then one for the whole) [default: table on a terminal, json in a
    /// pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
}

pub(super) fn run(args: &Verify) -> Result<Exit, Failure> {
    let out = Out::new();
    let json = is_json(args.format.as_ref(), out)?;
    let opened = open(&args.directory)?;
    let progress = Progress::bytes(Some(0));
    let mut tell = |done, total| progress.set(done, total);
    let checked = if opened.running.is_some() {
        storage::verify_running::<State>(&opened.disk, &mut tell)
    } else {
        let mut state = State::default();
        storage::verify(&opened.disk, &mut state, &mut tell).map(|verdict| (verdict, state))
    };
    progress.clear();
    let (verdict, state) = checked.map_err(|error| not_checked(&args.directory, &error))?;
    let exit = if verdict.damages.is_empty() { Exit::Ok } else { Exit::Damaged };
    let text = if json {
        let lines = verdict.damages.iter().map(|damage| damage_json(damage, &state));
        let lines: Vec<String> =
            lines.chain([verdict_json(&verdict, &opened)]).map(|line| line.to_string() + "\n").collect();
        lines.concat()
    } else {
        told(&args.directory, &verdict, &opened, &state)
    };
    out.finish(text.as_bytes(), exit)
}

/// A topic's name, as far as the state knows it.
pub(super) fn name_of(damage: &Damage, state: &State) -> Option<String> {
    let key = damage.partition?;
    Some(state.topics.name(key.topic).map_or_else(|| key.topic.to_string(), ToString::to_string))
}

pub(super) fn damage_json(damage: &Damage, state: &State) -> Value {
    json!({
        "damage": damage.what,
        "means": damage.means,
        "file": damage.file,
        "position": damage.position,
        "topic": name_of(damage, state),
        "topic_id": damage.partition.map(|key| key.topic.to_string()),
        "partition": damage.partition.map(|key| key.partition),
        "first_offset": damage.offsets.map(|offsets| offsets.0),
        "last_offset": damage.offsets.map(|offsets| offsets.1),
    })
}

fn verdict_json(verdict: &Verdict, opened: &Opened) -> Value {
    json!({
        "verdict": if verdict.damages.is_empty() { "intact" } else { "damaged" },
        "server": if opened.running.is_some() { "running" } else { "none" },
        "damages": verdict.damages.len(),
        "topics": verdict.topics,
        "partitions": verdict.partitions,
        "segments": verdict.segments,
        "batches": verdict.batches,
        "records": verdict.records,
        "bytes": verdict.bytes,
        "notes": verdict.notes,
    })
}

pub(super) fn damage_told(damage: &Damage, state: &State) -> String {
    let place = match (name_of(damage, state), damage.partition, damage.offsets) {
        (Some(name), Some(key), Some((first, last))) => {
            format!("  {name}[{}] offsets {first} to {last}", key.partition)
        }
        (Some(name), Some(key), None) => format!("  {name}[{}]", key.partition),
        _ => String::new(),
    };
    format!(
        "damaged  {} at byte {}{place}: {}\n         {}",
        damage.file, damage.position, damage.what, damage.means
    )
}

fn told(directory: &Path, verdict: &Verdict, opened: &Opened, state: &State) -> String {
    let count = |number: u64| grouped(i64::try_from(number).unwrap_or(i64::MAX));
    let mut lines: Vec<String> = verdict.damages.iter().map(|damage| damage_told(damage, state)).collect();
    lines.extend(verdict.notes.iter().map(|note| format!("note     {note}")));
    if let Some(running) = opened.running {
        let which = running.which();
        lines.push(format!(
            "note     a server{which} runs on it: checked as far as its journal went when the check began"
        ));
    }
    lines.push(format!(
        "{}  {}: {} records in {} batches of {} partitions, {} segments, {}",
        directory.display(),
        if verdict.damages.is_empty() { "intact" } else { "DAMAGED" },
        count(verdict.records),
        count(verdict.batches),
        verdict.partitions,
        count(verdict.segments),
        size(i64::try_from(verdict.bytes).unwrap_or(i64::MAX))
    ));
    lines.push(String::new());
    lines.join("\n")
}
