//! `annals consume`: records of a topic, printed.
//!
//! Without `--follow` it ends at the high watermark of its start. With `-g` it is a member of the group (`member`), or, where
//! it is told where to read, it commits for the group without being one (`commit`). Either way it commits what it has
//! printed, after its output is flushed: killed at any moment, it prints some records again and skips none. When nobody
//! reads its output any more it commits nothing more.

mod commit;
mod member;
mod sheet;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use annals_client::{Event, Reader as Subscription, ReaderOptions, ReaderState, Records};
use clap::Args;

use self::{commit::Committer, sheet::Sheet};
use super::{
    connect::{self, Interrupt, Server},
    exit::{Exit, Failure},
    filter::Filters,
    format::Format,
    out::{Reader::Gone, talk},
    plan::{Planned, check_forward, plan},
    position::Position,
};
use crate::clock::{Clock as _, SystemClock};

const EXAMPLE: &str = "Example:\n  annals consume orders -o start -n 10";
/// While records keep coming, a group commits so often.
const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// How often a commit is tried when the command ends.
const LAST_COMMIT_TRIES: u32 = 20;

const LONG: &str = "Print records of a topic.

POSITION is one of: start, end, 42 (this offset), -10 (so many before the end), +5 (so many after where the group stands), \
@-1h, @2026-11-01T00:00Z.

FORMAT is table, json, csv, raw (values, each with a line feed), or a template: %t topic, %p partition, %o offset, %k key, \
%v value, %T time in milliseconds, %h{name} a header, %% a percent sign; \\n \\t \\r \\0 \\\\ as in C; nothing is added.";

/// Print records of a topic
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE, long_about = LONG)]
pub(crate) struct Consume {
    /// Topic to read
    topic: String,
    /// Where to begin: start, end, 42, -10, +5, @-1h, @2026-11-01T00:00Z [default: where the group stands, else start]
    #[arg(short = 'o', long = "offset", value_name = "POSITION", allow_hyphen_values = true)]
    position: Option<Position>,
    /// Print at most so many records
    #[arg(short = 'n', long = "count", value_name = "N")]
    count: Option<u64>,
    /// Read this partition only
    #[arg(short, long, value_name = "N")]
    partition: Option<u32>,
    /// Be a member of this group: share its partitions with the others, begin where it stands, commit what is printed. With -o
    /// or -p, commit for it without being one, which is refused while it has members
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
    /// With -g: a name that outlives this run; who comes back under it in time gets its partitions back
    #[arg(long, value_name = "NAME", requires = "group", conflicts_with_all = ["position", "partition"])]
    member: Option<String>,
    /// Wait for more at the end, until Ctrl-C
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    filter: Filters,
    /// Step over damaged records, saying so, instead of failing
    #[arg(long)]
    skip_damaged: bool,
    #[command(flatten)]
    server: Server,
    /// How to print: table, json, csv, raw or a template [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
}

pub(crate) fn run(args: &Consume) -> Result<Exit, Failure> {
    if let Some(group) = args.group.as_deref().filter(|_| args.position.is_none() && args.partition.is_none())
    {
        return connect::run_to_end(async |interrupt| member::run(args, group, interrupt).await);
    }
    connect::run_to_end(async |mut interrupt| {
        let begun = tokio::select! {
            begun = Run::begin(args) => begun?,
            () = interrupt.came() => return Ok(Exit::Interrupted),
        };
        begun.read(interrupt).await
    })
}

/// One run of the command.
struct Run<'a> {
    args: &'a Consume,
    clock: SystemClock,
    sheet: Sheet,
    subscription: Subscription,
    committer: Option<Committer>,
    /// Where each partition ends for this run; empty when following.
    ends: BTreeMap<u32, i64>,
    last_commit: Duration,
    failure: Option<Failure>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    /// Everything asked for is printed.
    Done,
    /// Nobody reads the output.
    ReaderGone,
}

impl<'a> Run<'a> {
    async fn begin(args: &'a Consume) -> Result<Self, Failure> {
        let clock = SystemClock::new();
        let client = args.server.connect().await?;
        let group = args.group.as_deref();
        let planned =
            plan(&client, &args.topic, args.partition, args.position, group, clock.wall_ms()).await?;
        let committer = match group {
            Some(group) => {
                check_forward(&args.topic, group, &planned)?;
                Some(Committer::new(&client, group, &args.topic, &planned))
            }
            None => None,
        };
        let to_read = |at: &&Planned| args.follow || at.from < at.end;
        let positions: Vec<_> = planned.iter().filter(to_read).map(|at| at.position(&args.topic)).collect();
        let ends: BTreeMap<u32, i64> = if args.follow {
            BTreeMap::new()
        } else {
            planned.iter().filter(to_read).map(|at| (at.partition, at.end)).collect()
        };
        let total: i64 = planned.iter().map(|at| at.end - at.from).sum();
        let total = u64::try_from(total).unwrap_or_default();
        let options = ReaderOptions {
            skip_damaged: args.skip_damaged,
            filter: args.filter.filter(),
            follow_growth: args.follow && args.partition.is_none(),
            on_state: Some(Arc::new(|state| {
                if let ReaderState::Lost { error, .. } = state {
                    talk(format_args!("connection lost, trying again: {}", error.message()));
                }
            })),
            ..ReaderOptions::default()
        };
        let subscription = client.subscribe(positions, options).await?;
        Ok(Self {
            args,
            sheet: Sheet::new(args, (!args.follow).then_some(total)),
            subscription,
            committer,
            ends,
            last_commit: clock.monotonic(),
            clock,
            failure: None,
        })
    }

    async fn read(mut self, mut interrupt: Interrupt) -> Result<Exit, Failure> {
        let mut stopped_by_hand = false;
        let next = loop {
            if self.is_done() {
                break Next::Done;
            }
            // What is at hand is printed in large pieces; before waiting, what is printed is flushed and committed.
            let at_hand = tokio::time::timeout(Duration::ZERO, self.subscription.next()).await;
            let event = if let Ok(event) = at_hand {
                event?
            } else {
                if self.flush()? == Next::ReaderGone {
                    break Next::ReaderGone;
                }
                self.commit().await?;
                tokio::select! {
                    () = interrupt.came() => {
                        stopped_by_hand = true;
                        break Next::Done;
                    }
                    () = tokio::time::sleep(COMMIT_EVERY), if self.commit_is_due() => continue,
                    event = self.subscription.next() => event?,
                }
            };
            let next = match event {
                None => Next::Done,
                Some(event) => self.take(event).await?,
            };
            if next != Next::GoOn {
                break next;
            }
        };
        self.sheet.end();
        if next == Next::Done && self.flush()? == Next::Done {
            self.last_commit().await?;
        }
        match self.failure {
            Some(failure) => Err(failure),
            None if stopped_by_hand => Ok(Exit::Interrupted),
            None => Ok(Exit::Ok),
        }
    }

    fn is_done(&self) -> bool {
        self.sheet.is_full() || (!self.args.follow && self.ends.is_empty())
    }

    async fn take(&mut self, event: Event) -> Result<Next, Failure> {
        match event {
            Event::Records(records) => {
                self.print(&records)?;
                if !self.sheet.is_due() {
                    return Ok(Next::GoOn);
                }
                let next = self.flush()?;
                if next == Next::ReaderGone {
                    return Ok(next);
                }
                if self.clock.monotonic().saturating_sub(self.last_commit) >= COMMIT_EVERY {
                    self.commit().await?;
                }
            }
            Event::CaughtUp { .. } => {}
            Event::Failed(failed) => {
                let failure = Failure::from(failed.error)
                    .while_doing(format_args!("{}[{}]", failed.topic, failed.partition));
                talk(format_args!("annals: {failure}"));
                self.ends.remove(&failed.partition);
                self.failure.get_or_insert(failure);
            }
        }
        Ok(Next::GoOn)
    }

    /// Prints the records up to this run's end into the buffer.
    fn print(&mut self, records: &Records) -> Result<(), Failure> {
        let end = self.ends.get(&records.partition()).copied().unwrap_or(i64::MAX);
        let end = if self.args.follow { i64::MAX } else { end };
        let next_offset = self.sheet.print(records, 0, end)?;
        if next_offset >= end {
            self.ends.remove(&records.partition());
        }
        if let Some(committer) = &mut self.committer {
            committer.printed(records.commit_position(next_offset));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<Next, Failure> {
        Ok(if self.sheet.flush()? == Gone { Next::ReaderGone } else { Next::Done })
    }

    fn commit_is_due(&self) -> bool {
        self.committer.as_ref().is_some_and(Committer::is_due)
    }

    /// Commits what is printed and flushed; what fails for now is tried again later.
    async fn commit(&mut self) -> Result<bool, Failure> {
        self.last_commit = self.clock.monotonic();
        match &mut self.committer {
            Some(committer) => committer.commit().await,
            None => Ok(true),
        }
    }

    async fn last_commit(&mut self) -> Result<(), Failure> {
        for _ in 0..LAST_COMMIT_TRIES {
            if self.commit().await? {
                return Ok(());
            }
            tokio::time::sleep(COMMIT_EVERY).await;
        }
        Err(uncommitted())
    }
}

/// The last commit found no server.
fn uncommitted() -> Failure {
    let what = "what was printed last could not be committed: the server does not answer";
    Failure::new(Exit::Unavailable, what).next("It will be printed again: annals consume with the same group")
}
