//! `annals log repair`: says what can be put right, and with `--yes` does it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use annals_wire::{ids::TopicId, internal::state_entry::Body};
use clap::Args;
use serde_json::{Value, json};

use super::{is_json, not_checked, not_opened, open, verify};
use crate::{
    cli::{
        exit::{Exit, Failure, io_failure},
        format::Format,
        out::Out,
    },
    state::{self, Settings, State, Topic},
    storage::{
        self, Disk, Level, RealDisk,
        repair::{Plan, Repair as OneRepair},
    },
};

/// Put right what can be put right without giving anything up
///
/// Says what it would do and writes nothing, unless --yes is given. Makes indexes again; moves a damaged snapshot to
/// quarantine/ where the other one holds; makes a snapshot from segments and journal where none does, and says what nobody
/// can know any more; puts segment files back that lie in each other's place. Nothing is deleted. What it does not mend, a
/// damaged journal above all, it says. The server must not be running. Ends with 0 if nothing is damaged, 8 if it would do
/// something, 7 if damage is left.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals log repair ./annals-data")]
pub(super) struct Repair {
    /// The data directory
    directory: PathBuf,
    /// Do it
    #[arg(long)]
    yes: bool,
    /// How to print: table or json (a line for each repair, then one for the whole) [default: table on a terminal, json in a
    /// pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
}

pub(super) fn run(args: &Repair) -> Result<Exit, Failure> {
    let out = Out::new();
    let json = is_json(args.format.as_ref(), out)?;
    let looked = open(&args.directory)?;
    if let Some(running) = looked.running {
        let which = running.which();
        let what = format!("{} is in use by a running server{which}", args.directory.display());
        return Err(Failure::new(Exit::Conflict, what).next("Stop the server first"));
    }
    let failure = |error| not_checked(&args.directory, &error);
    let plan = storage::repair::plan::<State>(&looked.disk, &adopted).map_err(failure)?;
    drop(looked);
    if args.yes && !plan.repairs.is_empty() {
        let disk = RealDisk::open(&args.directory).map_err(|error| not_opened(&args.directory, &error))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        // Made again under the lock that lets nobody else in: nothing came between.
        let plan = storage::repair::plan::<State>(&disk, &adopted).map_err(failure)?;
        storage::repair::apply(&disk, &plan, &mut |_| {})
            .map_err(|error| io_failure("the repair was cut off; the next one goes on", &error))?;
        return report(args, &disk, &plan, json, out);
    }
    let looked = open(&args.directory)?;
    report(args, &looked.disk, &plan, json, out)
}

/// What was, or would be, done, and what is left then.
fn report(args: &Repair, disk: &Arc<dyn Disk>, plan: &Plan, json: bool, out: Out) -> Result<Exit, Failure> {
    let mut state = State::default();
    let verdict = storage::verify(disk, &mut state, &mut |_, _| {})
        .map_err(|error| not_checked(&args.directory, &error))?;
    let would = !args.yes && !plan.repairs.is_empty();
    let exit = match (would, verdict.damages.is_empty() && plan.left.is_empty()) {
        (true, _) => Exit::Differences,
        (false, true) => Exit::Ok,
        (false, false) => Exit::Damaged,
    };
    let text = if json {
        let repairs = plan.repairs.iter().map(|repair| repair_json(repair, args.yes));
        let damages =
            verdict.damages.iter().filter(|_| !would).map(|damage| verify::damage_json(damage, &state));
        let whole = json!({
            "repairs": plan.repairs.len(),
            "done": args.yes,
            "unknown": plan.unknown,
            "left": plan.left,
            "damages": verdict.damages.len(),
        });
        repairs.chain(damages).chain([whole]).map(|line| line.to_string() + "\n").collect::<String>()
    } else {
        let mut lines: Vec<String> =
            plan.repairs.iter().map(|repair| repair_told(repair, args.yes)).collect();
        lines.extend(plan.unknown.iter().map(|what| format!("unknown  {what}")));
        lines.extend(plan.left.iter().map(|what| format!("left     {what}")));
        if !would {
            lines.extend(verdict.damages.iter().map(|damage| verify::damage_told(damage, &state)));
        }
        lines.push(last_line(&args.directory, plan, would, args.yes, verdict.damages.len()));
        lines.join("\n") + "\n"
    };
    out.finish(text.as_bytes(), exit)
}

fn last_line(directory: &Path, plan: &Plan, would: bool, done: bool, damages: usize) -> String {
    let directory = directory.display();
    match (plan.repairs.len(), damages) {
        (repairs, _) if would => format!("{directory}  {repairs} repairs; nothing was written. Do it: --yes"),
        (0, 0) if plan.left.is_empty() => format!("{directory}  nothing to repair"),
        (repairs, 0) if done => format!("{directory}  {repairs} repairs done; intact now"),
        (repairs, left) => format!("{directory}  {repairs} repairs; {left} damages are left as they are"),
    }
}

fn repair_told(repair: &OneRepair, done: bool) -> String {
    let word = if done { "done" } else { "would" };
    format!("{word:<8} {}: {}\n         {}", repair.file, repair.why, repair.what)
}

fn repair_json(repair: &OneRepair, done: bool) -> Value {
    json!({"repair": repair.what, "file": repair.file, "why": repair.why, "done": done})
}

/// A topic of which only files are left.
fn adopted(topic: TopicId, partitions: u32) -> Vec<u8> {
    let settings = Settings {
        partitions,
        level: Level::Fsync,
        segment_bytes: 64 * 1024 * 1024,
        interval_ms: 100,
        interval_bytes: 1024 * 1024,
    };
    let name = format!("recovered-{topic}").into();
    let topic = Topic { number: 0, id: topic, name, settings, created_ms: 0 };
    state::write_entry(Body::TopicCreated(topic.to_entry()))
}
