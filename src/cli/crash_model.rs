//! `annals crash-model`: the power-cut model, for as many seeds as one likes. Touches no disk and no server.

use std::fmt::Write as _;

use clap::Args;

use super::{
    exit::{Exit, Failure},
    format::{Format, push_json_string},
    out::{Out, talk},
    progress::Progress,
    rows::grouped,
};
use crate::{
    clock::{Clock as _, SystemClock},
    model::{self, Deed, Outcome, Plan, Sweep},
};

/// Prove the storage against power cuts: random work on a simulated disk, cut, recovered, compared byte for byte
///
/// Each seed is one history, the same every time: appends, atomic groups, committed offsets, topics made and deleted,
/// snapshots, failing flushes; the power goes or the process is killed at any call of the disk, in recovery too; unflushed
/// sectors are lost, torn or old; bits flip. Ends with 1 at the first broken promise and says how to replay it.
///
/// With --exhaustive no lots are drawn: every script of so many steps, cut at every call of the disk, with everything that
/// is to be found afterwards: nothing unflushed, each page and each sector of the last write alone there or alone missing,
/// all of it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals crash-model --seeds 500")]
pub(crate) struct CrashModel {
    /// How many seeds to run
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    seeds: u64,
    /// The first one
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    from: u64,
    /// Threads to run them on [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Tell on standard error what each history does, one after the other
    #[arg(long)]
    trace: bool,
    /// Instead of seeds, every script of up to so many steps
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u8).range(1..=4),
        conflicts_with_all = ["seeds", "from", "trace"])]
    exhaustive: Option<u8>,
    /// How to print: table or json [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
}

pub(crate) fn run(args: &CrashModel) -> Result<Exit, Failure> {
    let out = Out::new();
    let json = match Format::choose(args.format.as_ref(), out.terminal) {
        Format::Table => false,
        Format::Json => true,
        Format::Csv | Format::Raw | Format::Template(_) => {
            return Err(Failure::usage("-f is table or json here"));
        }
    };
    if let Some(steps) = args.exhaustive {
        return every_script(args, usize::from(steps), out, json);
    }
    name_the_seed_of_a_panic();
    let clock = SystemClock::new();
    let sweep = if args.trace { traced(args) } else { silent(args) };
    let seconds = clock.monotonic().as_secs_f64();
    let text = told(&sweep.sum, seconds, json);
    if let Some(failure) = &sweep.failure {
        // What was counted until then is data all the same.
        let _written_or_not = out.write(text.as_bytes())?;
        return Err(
            Failure::new(Exit::Failed, format!("a promise is broken: {failure}")).next(replay(failure.seed))
        );
    }
    out.finish(text.as_bytes(), Exit::Ok)
}

fn every_script(args: &CrashModel, steps: usize, out: Out, json: bool) -> Result<Exit, Failure> {
    let clock = SystemClock::new();
    let progress = Progress::histories(model::scripts(Deed::ALL.len(), steps));
    let found = model::exhaustive(&Deed::ALL, steps, threads(args), &|| progress.add(1));
    progress.clear();
    let count = found.map_err(|broken| {
        Failure::new(Exit::Failed, format!("a promise is broken: {broken}"))
            .next(format!("Replay it: annals crash-model --exhaustive {}", broken.script.len()))
    })?;
    let mut rows: Vec<(String, u64)> =
        count.rows().iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    rows.push(("steps".to_owned(), steps as u64));
    let seconds = clock.monotonic().as_secs_f64();
    out.finish(text_of(&rows, "scripts", count.scripts, seconds, count.hash, json).as_bytes(), Exit::Ok)
}

fn threads(args: &CrashModel) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    args.threads.map_or(processors, usize::from)
}

fn replay(seed: u64) -> String {
    format!("Replay it: annals crash-model --from {seed} --seeds 1 --trace")
}

/// A panic is a broken promise, too, and ends the process: it must say which seed it was.
fn name_the_seed_of_a_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if let Some(seed) = model::current_seed() {
            talk(format_args!("annals: a panic at seed {seed}. {}", replay(seed)));
        }
    }));
}

fn silent(args: &CrashModel) -> Sweep {
    let progress = Progress::histories(args.seeds);
    let sweep = model::sweep(args.from, args.seeds, threads(args), &|| progress.add(1));
    progress.clear();
    sweep
}

fn traced(args: &CrashModel) -> Sweep {
    let mut sweep = Sweep::default();
    for seed in (0..args.seeds).map(|at| args.from.wrapping_add(at)) {
        talk(format_args!("seed {seed}: {:?}", Plan::of(seed)));
        match model::run_traced(seed, &Plan::of(seed), &mut |line| talk(line)) {
            Ok(outcome) => {
                talk(format_args!("seed {seed}: trace hash {:016x}", outcome.trace_hash));
                sweep.sum += outcome;
            }
            Err(failure) => {
                sweep.failure = Some(failure);
                break;
            }
        }
    }
    sweep
}

fn told(sum: &Outcome, seconds: f64, json: bool) -> String {
    text_of(&sum.rows(), "seeds", sum.histories, seconds, sum.trace_hash, json)
}

/// Counts; how many of `done`, seeds or scripts, there were in a second; the hash over all of it.
fn text_of(rows: &[(String, u64)], done: &str, count: u64, seconds: f64, hash: u64, json: bool) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = count as f64 / seconds.max(1e-9);
    let mut text = String::new();
    if json {
        text.push('{');
        for (name, count) in rows {
            let mut key = Vec::new();
            push_json_string(&mut key, name);
            let _ = write!(text, "{}:{count},", String::from_utf8_lossy(&key));
        }
        let _ = writeln!(
            text,
            "\"seconds\":{seconds:.3},\"{done}_per_second\":{rate:.0},\"trace_hash\":\"{hash:016x}\"}}"
        );
        return text;
    }
    for (name, count) in rows {
        let _ = writeln!(
            text,
            "{:<28} {:>14}",
            name.replace('_', " "),
            grouped(i64::try_from(*count).unwrap_or(i64::MAX))
        );
    }
    let _ = writeln!(text, "{:<28} {seconds:>14.1}", "seconds");
    let _ = writeln!(text, "{:<28} {rate:>14.0}", format!("{done} per second"));
    let _ = writeln!(text, "{:<28} {hash:>14x}", "trace hash");
    text
}
