//! `annals replay`: a range of history once more, to standard output or into another topic.
//!
//! ```text
//!   FROM..TO -> offsets in each partition -> Source (filtered by the server) -> Pace -> Print | Copy
//! ```
//!
//! The range is fixed when a replay begins; one that was stopped goes on in the range it began with. Records of a partition
//! come in order; with `--speed` those of all partitions by their times.

mod copy;
mod count;
mod pace;
mod place;
mod print;
mod shadow;
mod source;

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use annals_client::{Client, Records, v1};
use clap::Args;
use prost::Message as _;

use self::{
    copy::Copy,
    count::count,
    pace::{Pace, Speed},
    place::Place,
    print::Print,
    shadow::shadow,
    source::{Piece, Source, Span},
};
use super::{
    connect::{self, Interrupt, Server},
    exit::{Exit, Failure},
    filter::Filters,
    format::{Format, Headers, View},
    out::{Out, Reader, talk},
    plan::plan,
    position::{Range, milliseconds},
    progress::Progress,
};
use crate::clock::{Clock as _, SystemClock};

const EXAMPLE: &str = "Example:\n  annals replay orders @-10m..end --dry-run";

const LONG: &str = "Replay a range of history: print it, copy it into another topic, or give it to a group of its own.

The range is fixed when the replay begins. POSITION is one of: start, end, 42 (this offset), -10 (so many before the end), @-1h, \
@2026-11-01T00:00Z.

Stop it with Ctrl-C. To standard output, --resume=FILE keeps where it stands in FILE and goes on from there: nothing is left out, and what was \
printed last may be printed again. With --into, each record is stored once, whatever is killed: run it again with --resume until it ends. With --into-group the server keeps the range for members of a \
new group, up to where it ends: annals consume TOPIC -g GROUP, or any client that joins it.";

/// Replay a range of history: print it, copy it into another topic, or give it to a group of its own
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE, long_about = LONG)]
pub(crate) struct Replay {
    /// Topic
    topic: String,
    /// From which POSITION up to which
    #[arg(value_name = "FROM..TO", allow_hyphen_values = true, default_value = "start..end")]
    range: Range,
    #[command(flatten)]
    filter: Filters,
    /// Only this partition
    #[arg(short, long, value_name = "N")]
    partition: Option<u32>,
    /// Only count, partition by partition; ends with 8 if there is anything to replay
    #[arg(long, conflicts_with_all = ["into", "speed", "resume"])]
    dry_run: bool,
    /// Copy the records into this topic, with their keys, headers and times
    #[arg(long, value_name = "TOPIC")]
    into: Option<String>,
    /// Give the range to a new group of this name, which groups at work do not notice
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["into", "dry_run", "speed", "resume"])]
    into_group: Option<String>,
    /// Without commits for so long the new group is removed: 90s, 12h, 7d
    #[arg(long, value_name = "TIME", default_value = "7d", requires = "into_group")]
    ttl: Ttl,
    /// Members of the new group may store what they make of the records, as if they came for the first time
    #[arg(long, requires = "into_group")]
    allow_outputs: bool,
    /// As far apart as they once were, or so many times closer: 1x, 10x
    #[arg(long, value_name = "SPEED")]
    speed: Option<Speed>,
    /// Go on with a replay that was stopped; to standard output: with the one whose place FILE keeps
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    resume: Option<String>,
    #[command(flatten)]
    server: Server,
    /// How to print: table, json, csv, raw or a template [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "into")]
    format: Option<Format>,
}

pub(crate) fn run(args: &Replay) -> Result<Exit, Failure> {
    if args.dry_run {
        return connect::run(count(args));
    }
    if let Some(group) = &args.into_group {
        return connect::run(shadow(args, group));
    }
    connect::run_to_end(async |mut interrupt| {
        let begun = tokio::select! {
            begun = Run::begin(args) => begun?,
            () = interrupt.came() => return Ok(Exit::Interrupted),
        };
        begun.run(interrupt).await
    })
}

/// How long a group lives without commits, milliseconds.
#[derive(Clone, Copy, Debug)]
struct Ttl(u64);

impl FromStr for Ttl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ms = milliseconds(text)?;
        u64::try_from(ms).map(Self).map_err(|_| format!("\"{text}\" is less than nothing"))
    }
}

/// The range in each partition, as it is now.
async fn spans(args: &Replay, client: &Client, range: Range) -> Result<BTreeMap<u32, Span>, Failure> {
    let now_ms = SystemClock::new().wall_ms();
    let from = plan(client, &args.topic, args.partition, Some(range.from), None, now_ms).await?;
    let to = plan(client, &args.topic, args.partition, Some(range.to), None, now_ms).await?;
    let ends: BTreeMap<u32, i64> = to.iter().map(|at| (at.partition, at.from)).collect();
    let span = |partition: u32, from: i64, end: i64| Span {
        next: from,
        to: ends.get(&partition).copied().unwrap_or(end).max(from),
    };
    Ok(from.iter().map(|at| (at.partition, span(at.partition, at.from, at.end))).collect())
}

fn total(spans: &BTreeMap<u32, Span>) -> Option<u64> {
    u64::try_from(spans.values().map(|span| span.to - span.next).sum::<i64>()).ok()
}

/// Tells replays apart that ask for other records of the same range.
fn asked(args: &Replay) -> u32 {
    let filter = args.filter.filter().map(v1::Filter::from).unwrap_or_default();
    crc32fast::hash(format!("{:?} {:?}", filter.encode_to_vec(), args.partition).as_bytes())
}

/// Where the records go.
#[derive(Debug)]
enum Sink {
    Print(Print),
    Copy(Box<Copy>),
}

impl Sink {
    fn record<'a, H: Headers<'a>>(&mut self, record: &View<'a, H>) -> Result<(), Failure> {
        match self {
            Self::Print(print) => print.record(record),
            Self::Copy(copy) => copy.record(record)?,
        }
        Ok(())
    }

    /// All before this offset was handed over.
    fn reached(&mut self, partition: u32, next: i64) {
        match self {
            Self::Print(print) => print.reached(partition, next),
            Self::Copy(copy) => copy.reached(partition, next),
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Self::Print(print) => print.is_full(),
            Self::Copy(copy) => copy.is_full(),
        }
    }

    async fn flush(&mut self) -> Result<Reader, Failure> {
        match self {
            Self::Print(print) => print.flush(),
            Self::Copy(copy) => copy.flush().await.map(|()| Reader::Here),
        }
    }
}

/// One run of the command.
struct Run<'a> {
    args: &'a Replay,
    source: Source,
    sink: Sink,
    progress: Progress,
}

/// How it ended.
enum End {
    Done,
    ReaderGone,
    ByHand,
}

impl<'a> Run<'a> {
    async fn begin(args: &'a Replay) -> Result<Self, Failure> {
        let client = args.server.connect().await?;
        let (filter, asked) = (args.filter.filter(), asked(args));
        let (sink, spans) = match &args.into {
            Some(into) => {
                if *into == args.topic {
                    return Err(Failure::usage(format!("\"{into}\" would be replayed into itself"))
                        .next("Name another topic: --into TOPIC"));
                }
                if args.resume.as_ref().is_some_and(|file| !file.is_empty()) {
                    return Err(Failure::usage("with --into the place is kept by the server")
                        .next("Leave the file out: --resume"));
                }
                let fresh = spans(args, &client, args.range).await?;
                let resume = args.resume.is_some();
                let copy = Copy::begin(&client, &args.topic, into, asked, resume, fresh).await?;
                let spans = copy.spans();
                (Sink::Copy(Box::new(copy)), spans)
            }
            None => Self::begin_print(args, &client, asked).await?,
        };
        let progress =
            Progress::records(total(&spans).filter(|_| !Out::new().terminal || args.into.is_some()));
        let source = Source::new(&client, &args.topic, filter, spans);
        Ok(Self { args, source, sink, progress })
    }

    async fn begin_print(
        args: &Replay,
        client: &Client,
        asked: u32,
    ) -> Result<(Sink, BTreeMap<u32, Span>), Failure> {
        if args.resume.as_ref().is_some_and(String::is_empty) {
            return Err(Failure::usage("--resume needs a file to keep its place in")
                .next("Name one: --resume=FILE; with --into the server keeps it"));
        }
        let file = args.resume.as_ref().map(PathBuf::from);
        let before = file.as_deref().map(Place::load).transpose()?.flatten();
        let begins = before.is_none();
        let place = match before {
            Some(place) if place.topic != args.topic || place.asked != asked => {
                let what = "the file is another replay's: topic, key, type, headers and partition have to be the same";
                return Err(Failure::new(Exit::Conflict, what).next("Name another file: --resume=FILE"));
            }
            Some(place) => place,
            None => Place { topic: args.topic.clone(), asked, spans: spans(args, client, args.range).await? },
        };
        let spans = place.spans.clone();
        Ok((Sink::Print(Print::new(args.format.as_ref(), file, place, begins)), spans))
    }

    async fn run(mut self, mut interrupt: Interrupt) -> Result<Exit, Failure> {
        let end = match self.args.speed {
            None => self.through(&mut interrupt).await,
            Some(speed) => self.paced(Pace::new(speed), &mut interrupt).await,
        };
        self.progress.clear();
        let end = end?;
        if matches!(end, End::ReaderGone) || self.sink.flush().await? == Reader::Gone {
            return Ok(Exit::Ok);
        }
        match (end, &self.sink) {
            (End::Done, Sink::Copy(copy)) => copy.finish().await?,
            (End::ByHand, _) => {
                talk(format_args!("stopped. {}", how_to_go_on(self.args)));
                return Ok(Exit::Interrupted);
            }
            _ => {}
        }
        Ok(Exit::Ok)
    }

    /// As fast as it goes, piece by piece.
    async fn through(&mut self, interrupt: &mut Interrupt) -> Result<End, Failure> {
        while !self.source.is_done() {
            let left: Vec<u32> = self.source.left().collect();
            let pieces = tokio::select! {
                pieces = self.source.read(&left) => pieces?,
                () = interrupt.came() => return Ok(End::ByHand),
            };
            for piece in pieces {
                if self.take(&piece).await? == Reader::Gone {
                    return Ok(End::ReaderGone);
                }
            }
            if self.sink.flush().await? == Reader::Gone {
                return Ok(End::ReaderGone);
            }
        }
        Ok(End::Done)
    }

    async fn take(&mut self, piece: &Piece) -> Result<Reader, Failure> {
        let mut handed = 0;
        warn_of_gaps(&piece.records);
        for batch in piece.records.batches() {
            for record in batch?.records() {
                let record = record?;
                if record.offset >= piece.to {
                    break;
                }
                self.sink.record(&View {
                    topic: piece.records.topic(),
                    partition: piece.partition(),
                    offset: record.offset,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key,
                    value: record.value,
                    headers: record.headers(),
                })?;
                handed += 1;
                if self.sink.is_full() {
                    self.sink.reached(piece.partition(), record.offset + 1);
                    if self.sink.flush().await? == Reader::Gone {
                        return Ok(Reader::Gone);
                    }
                }
            }
        }
        self.sink.reached(piece.partition(), piece.next());
        self.progress.add(handed);
        Ok(Reader::Here)
    }

    /// Each record when it is due: by time, over all partitions.
    async fn paced(&mut self, mut pace: Pace, interrupt: &mut Interrupt) -> Result<End, Failure> {
        let clock = SystemClock::new();
        let mut queues: BTreeMap<u32, VecDeque<Held>> = BTreeMap::new();
        loop {
            // The next record is known once there is one of each partition, or no more of it.
            let dry = |partition: &u32| queues.get(partition).is_none_or(VecDeque::is_empty);
            let dry: Vec<u32> = self.source.left().filter(dry).collect();
            if !dry.is_empty() {
                let pieces = tokio::select! {
                    pieces = self.source.read(&dry) => pieces?,
                    () = interrupt.came() => return Ok(End::ByHand),
                };
                for piece in pieces {
                    let queue = queues.entry(piece.partition()).or_default();
                    queue.extend(held(&piece)?);
                    if queue.is_empty() {
                        self.sink.reached(piece.partition(), piece.next());
                    }
                }
                continue;
            }
            let heads = queues
                .iter()
                .filter_map(|(partition, queue)| Some((queue.front()?.timestamp_ms, *partition)));
            let Some((timestamp_ms, partition)) = heads.min() else { return Ok(End::Done) };
            let wait = pace.wait(timestamp_ms, clock.monotonic());
            if !wait.is_zero() || self.sink.is_full() {
                if self.sink.flush().await? == Reader::Gone {
                    return Ok(End::ReaderGone);
                }
                tokio::select! {
                    () = tokio::time::sleep(wait.min(LONGEST_SLEEP)) => {}
                    () = interrupt.came() => return Ok(End::ByHand),
                }
                if wait > LONGEST_SLEEP {
                    continue;
                }
            }
            let Some(record) = queues.get_mut(&partition).and_then(VecDeque::pop_front) else { continue };
            self.sink.record(&record.view(&self.args.topic, partition))?;
            self.sink.reached(partition, record.next);
            self.progress.add(1);
        }
    }
}

/// Timers further ahead than this are not trusted.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// A record that waits until it is due.
#[derive(Debug)]
struct Held {
    offset: i64,
    /// What is reached with it: the record after it, or the end of the piece.
    next: i64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Held {
    fn view<'a>(&'a self, topic: &'a str, partition: u32) -> View<'a, impl Headers<'a>> {
        let header = |(name, value): &'a (String, Option<Vec<u8>>)| (name.as_str(), value.as_deref());
        View {
            topic,
            partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self.headers.iter().map(header),
        }
    }
}

fn held(piece: &Piece) -> Result<Vec<Held>, Failure> {
    let mut all: Vec<Held> = Vec::new();
    warn_of_gaps(&piece.records);
    for batch in piece.records.batches() {
        for record in batch?.records() {
            let record = record?;
            if record.offset >= piece.to {
                break;
            }
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            all.push(Held {
                offset: record.offset,
                next: record.offset + 1,
                timestamp_ms: record.timestamp_ms,
                key: owned(record.key),
                value: owned(record.value),
                headers: record.headers().map(|(name, value)| (name.to_owned(), owned(value))).collect(),
            });
        }
    }
    if let Some(last) = all.last_mut() {
        last.next = piece.next();
    }
    Ok(all)
}

fn warn_of_gaps(records: &Records) {
    for gap in records.gaps() {
        talk(format_args!(
            "warning: {}[{}] offsets {} to {} are missing",
            records.topic(),
            records.partition(),
            gap.first_offset,
            gap.last_offset
        ));
    }
}

fn how_to_go_on(args: &Replay) -> String {
    match (&args.into, &args.resume) {
        (Some(_), _) => "Go on with the same command and --resume".to_owned(),
        (None, Some(file)) => format!("Go on with the same command: {file} says where"),
        (None, None) => "To be able to go on another time: --resume=FILE".to_owned(),
    }
}
