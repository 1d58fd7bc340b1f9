//! `annals crash-test`: on the user's own disk, a broker killed with -9 again and again under load, and everything it acked
//! looked for. `docs/crash-test.md` says what is tested, what is not, and how to pull the plug.
//!
//! ```text
//! this process                                             child process
//! producers, consumers  --annals-client-->                 annals serve    <- kill -9
//!      | acks, commits                                        | data
//! ledger (the oracle)   <-- reads it all back --------------- '
//!      | --journal
//! another machine: --listen, later --check
//! ```
//!
//! | module | what |
//! |---|---|
//! | `event` | what is written: every byte follows from its name |
//! | `ledger`, `findings` | the oracle: what was acked against what is read; what it counts |
//! | `producers`, `consumers`, `world` | the load, and what its parts share |
//! | `reading` | gives the oracle what the broker serves |
//! | `conduct` | lives, kills, storms |
//! | `cuts` | the power-cut model's part |
//! | `journal`, `listen`, `check` | acks kept on another machine, compared after a real power loss |
//! | `report` | what it says in the end |

mod check;
mod conduct;
mod consumers;
mod cuts;
mod event;
mod findings;
mod journal;
mod ledger;
mod listen;
mod producers;
mod reading;
mod report;
mod world;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use tempfile::TempDir;

use self::{
    check::Place,
    conduct::{Conductor, Enough, PARTITIONS},
    findings::Findings,
    journal::{Entry, Journal},
    report::{Cuts, Report, Tally, number_of},
    world::World,
};
use super::{
    connect,
    exit::{Exit, Failure, io_failure},
    format::Format,
    out::{Out, talk},
    position,
    progress::Progress,
    values::Level,
};
use crate::{
    clock::{Clock as _, SystemClock},
    state::State,
    storage::{self, Disk, RealDisk},
    sync::{Arc, Mutex, Ordering},
};

const EXAMPLE: &str = "Example:
  annals crash-test --kills 3

Pulling the plug, with a second machine:
  second$ annals crash-test --listen 0.0.0.0:7499 --to acks
  first$  annals crash-test --dir ./plug --duration 1h --journal second:7499
  (cut the power of the first, start it again, copy the file of acks to it)
  first$  annals crash-test --check acks --dir ./plug

Ends with 0 if every promise was kept, 7 if one was broken.";

/// Kill a broker with -9 again and again under load, on this disk, and look for everything it had acked
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(crate) struct CrashTest {
    /// Directory for the test, made if it does not exist; its data is left there [default: a new one here, removed if all
    /// went well]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Kills that must hit events under way [default: 20, or as many as the duration allows]
    #[arg(long, value_name = "N")]
    kills: Option<u32>,
    /// How long at most, such as 90s or 8h
    #[arg(long, value_name = "TIME", value_parser = position::milliseconds)]
    duration: Option<i64>,
    /// Producers, 1 to 64: the first, third, ... stream; the second, fourth, ... repeat by request id
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    producers: u32,
    /// Consumers that commit, 0 to 16
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=16))]
    consumers: u32,
    /// What an ack means
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Level::Fsync)]
    durability: Level,
    /// Histories of the power-cut model that are run after the kills
    #[arg(long, value_name = "N", default_value_t = 500)]
    cuts: u64,
    /// Tell each ack to a listener on another machine
    #[arg(long, value_name = "ADDR")]
    journal: Option<String>,
    /// Be that listener; port 0 takes a free one
    #[arg(long, value_name = "ADDR", requires = "to", conflicts_with_all = ["dir", "kills", "duration", "journal"])]
    listen: Option<String>,
    /// The listener's file; must not exist
    #[arg(long, value_name = "FILE", requires = "listen")]
    to: Option<PathBuf>,
    /// Compare what a listener kept with what is in --dir, or behind --server
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kills", "duration", "journal", "listen"])]
    check: Option<PathBuf>,
    /// With --check: a server that runs on the data
    #[arg(long, value_name = "ADDR", requires = "check", conflicts_with = "dir")]
    server: Option<String>,
    /// How to print: table or json [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
}

pub(crate) fn run(args: &CrashTest) -> Result<Exit, Failure> {
    let out = Out::new();
    let json = match Format::choose(args.format.as_ref(), out.terminal) {
        Format::Table => false,
        Format::Json => true,
        Format::Csv | Format::Raw | Format::Template(_) => {
            return Err(Failure::usage("-f is table or json here"));
        }
    };
    if let (Some(address), Some(to)) = (&args.listen, &args.to) {
        return listen::run(address, to);
    }
    if let Some(file) = &args.check {
        let place = match (&args.dir, &args.server) {
            (Some(directory), None) => Place::Directory(directory),
            (None, Some(server)) => Place::Server(server),
            _ => return Err(Failure::usage("--check needs --dir DIR or --server ADDR")),
        };
        let told = check::told(file)?;
        return connect::run(async {
            let report = check::run(told, place).await?;
            let exit = if report.is_clean() { Exit::Ok } else { Exit::Damaged };
            let text = if json { format!("{}\n", report.json()) } else { report.table() };
            out.finish(text.as_bytes(), exit)
        });
    }
    let (report, exit) = test(args)?;
    let text = if json { format!("{}\n", report.json()) } else { report.table() };
    out.finish(text.as_bytes(), exit)
}

/// Where a test works.
enum Directory {
    /// Removed unless something is to be looked at.
    Ours(TempDir),
    Theirs(PathBuf),
}

impl Directory {
    fn make(given: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = given else {
            let made = tempfile::Builder::new().prefix("annals-crash-test-").tempdir_in(".");
            return made.map(Self::Ours).map_err(|error| io_failure("no directory for the test", &error));
        };
        std::fs::create_dir_all(path).map_err(|error| io_failure(path.display(), &error))?;
        if path.join("data").exists() || path.join("ANNALS").exists() {
            return Err(Failure::new(Exit::Conflict, format!("{} holds data already", path.display()))
                .next("Name a new directory: a test kills only brokers of its own"));
        }
        Ok(Self::Theirs(path.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Ours(directory) => directory.path(),
            Self::Theirs(path) => path,
        }
    }

    /// Keeps it and says where, or removes it.
    fn end(self, keep: bool) -> Option<String> {
        match self {
            Self::Ours(directory) if keep => {
                let kept = directory.keep();
                Some(std::fs::canonicalize(&kept).unwrap_or(kept).display().to_string())
            }
            Self::Ours(_) => None,
            Self::Theirs(path) => Some(path.display().to_string()),
        }
    }
}

fn test(args: &CrashTest) -> Result<(Report, Exit), Failure> {
    let mut made = None;
    let exit = connect::run_to_end(async |mut interrupt| {
        let directory = Directory::make(args.dir.as_deref())?;
        let world = Arc::new(world(args).await?);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let over = course(args, &world, &tally, directory.path(), &mut interrupt).await;
        let trouble = over.as_ref().and_then(|over| over.as_ref().err().map(ToString::to_string));
        let damages = if over.is_some() { Some(damages_of(&directory.path().join("data"))?) } else { None };
        let cuts = model(&world, args.cuts, &mut interrupt).await?;
        let (findings, evidence) = counted(&world);
        let mut report = Report {
            findings,
            evidence,
            tally: tally.lock().clone(),
            level: world.level,
            producers: args.producers,
            consumers: args.consumers,
            damages,
            cuts,
            journal: args.journal.clone(),
            interrupted: world.stopped(),
            trouble,
            kept: None,
        };
        let exit = match over {
            _ if !report.is_clean() => Exit::Damaged,
            Some(Err(failure)) => failure.exit,
            _ if report.interrupted => Exit::Interrupted,
            _ => Exit::Ok,
        };
        report.kept = directory.end(!report.is_clean() || report.trouble.is_some());
        made = Some(report);
        Ok(exit)
    })?;
    let report = made.ok_or_else(|| Failure::new(Exit::Failed, "the test made no report"))?;
    Ok((report, exit))
}

/// What the parts share, the listener's connection included.
async fn world(args: &CrashTest) -> Result<World, Failure> {
    let run = SystemClock::new().random_u64();
    let level = args.durability.into();
    let journal = match &args.journal {
        None => None,
        Some(address) => {
            let hello = Entry::Hello {
                level: number_of(level),
                version: journal::VERSION,
                partitions: PARTITIONS,
                producers: args.producers,
                consumers: args.consumers,
                run,
            };
            Some(Journal::connect(address, hello).await?)
        }
    };
    Ok(World::new(run, level, (PARTITIONS, args.producers, args.consumers), journal))
}

/// Until it is over. Ctrl-C lets it come to an end; a second one does not: then there is nothing to say how it was.
async fn course(
    args: &CrashTest,
    world: &Arc<World>,
    tally: &Arc<Mutex<Tally>>,
    directory: &Path,
    interrupt: &mut connect::Interrupt,
) -> Option<Result<(), Failure>> {
    let enough = enough(args);
    let progress = Progress::counted(enough.kills.map(u64::from), "kills");
    let mut conductor =
        Conductor::new(Arc::clone(world), Arc::clone(tally), directory, enough, progress.clone());
    let mut course = std::pin::pin!(conductor.run());
    let over = loop {
        tokio::select! {
            over = &mut course => break Some(over),
            () = interrupt.came() => {
                if world.stop.swap(true, Ordering::AcqRel) {
                    break None;
                }
                talk("stopping: what was acked so far is checked; Ctrl-C again ends at once");
            }
        }
    };
    progress.clear();
    over
}

/// Of all topics.
fn counted(world: &World) -> (Findings, Vec<String>) {
    let (mut findings, mut evidence) = (*world.so_far.lock(), world.evidence.lock().clone());
    let ledger = world.ledger.lock();
    findings.add(&ledger.findings);
    evidence.extend(ledger.evidence.iter().cloned());
    (findings, evidence)
}

fn enough(args: &CrashTest) -> Enough {
    let duration = args.duration.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    Enough { kills: args.kills.or_else(|| duration.is_none().then_some(20)), duration }
}

/// The power-cut model, on a thread of its own, until it is done or Ctrl-C.
async fn model(world: &Arc<World>, seeds: u64, interrupt: &mut connect::Interrupt) -> Result<Cuts, Failure> {
    let (theirs, first) = (Arc::clone(world), world.run >> 16);
    let mut running = tokio::task::spawn_blocking(move || cuts::run(&theirs, first, seeds));
    loop {
        tokio::select! {
            done = &mut running => {
                return done.map_err(|error| Failure::new(Exit::Failed, format!("the model failed: {error}")));
            }
            () = interrupt.came() => world.stop.store(true, Ordering::Release),
        }
    }
}

/// What `log verify` sees.
fn damages_of(data: &Path) -> Result<Vec<String>, Failure> {
    let failure = |error: String| Failure::new(Exit::Failed, format!("{}: {error}", data.display()));
    let disk = RealDisk::open_at_rest(data).map_err(|error| failure(error.to_string()))?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let verdict = storage::verify(&disk, &mut State::default(), &mut |_, _| {});
    let damages = verdict.map_err(|error| failure(error.to_string()))?.damages;
    Ok(damages
        .into_iter()
        .map(|damage| format!("{} at byte {}: {}", damage.file, damage.position, damage.what))
        .collect())
}
