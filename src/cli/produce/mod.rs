//! `annals produce`: lines of files or of standard input become records.
//!
//! A line feed ends a record; everything else in a line is its value, bytes not text. The command ends with 0 only if every
//! record was acked. At the first failure nothing more is sent, and what was acked until then is said.

mod report;

use std::{path::PathBuf, sync::Arc, time::Duration};

use annals_client::{NewRecord, Outcome, Producer, ProducerOptions, TrySendError, v1};
use clap::Args;

use self::report::Report;
use super::{
    connect::{self, Interrupt, Server},
    exit::{Exit, Failure, io_failure},
    format::Format,
    input::{
        json,
        key::KeySource,
        lines::{self, Chunk, ReadError},
    },
    out::{Out, Reader, talk},
    position::milliseconds,
    progress::Progress,
    values::{Level, bytes},
};

const EXAMPLE: &str = "Example:\n  echo '{\"id\":1}' | annals produce orders -k cust-7";
/// Longest line of JSON: a record of the largest size, every byte of it escaped.
const LONGEST_JSON: usize = 8 * annals_client::MAX_RECORD_BYTES;

/// Publish lines as records
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Produce {
    /// Topic to publish to; made by the first record where the server allows it
    topic: String,
    /// Files to read, unpacked if their names end in .zst; - or none = standard input
    files: Vec<PathBuf>,
    /// Key of every record
    #[arg(short, long, value_name = "KEY", group = "keys")]
    key: Option<String>,
    /// Take the key from this member of the line's JSON object
    #[arg(long, value_name = "NAME", group = "keys")]
    key_field: Option<String>,
    /// Take the key from before the first S of the line, the value from behind it
    #[arg(long, value_name = "S", group = "keys", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_sep: Option<String>,
    /// Read whole records: what consume -f json or kcat -J has printed
    #[arg(long, group = "keys")]
    json: bool,
    /// Add a header to every record; may be given again
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Publish to this partition, whatever the key says
    #[arg(short, long, value_name = "N")]
    partition: Option<u32>,
    /// What an ack must mean, if more than the topic says
    #[arg(long, value_name = "LEVEL")]
    durability: Option<Level>,
    /// Send a batch when it has so many bytes
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "256KiB")]
    batch_bytes: u64,
    /// ... or when it is so old
    #[arg(long, value_name = "T", value_parser = milliseconds, default_value = "5ms")]
    linger: i64,
    #[command(flatten)]
    server: Server,
    /// What to print of each acked batch: json, csv or raw; table = a summary [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a header is NAME=VALUE".to_owned()),
    }
}

pub(crate) fn run(args: &Produce) -> Result<Exit, Failure> {
    let out = Out::new();
    let format = Format::choose(args.format.as_ref(), out.terminal);
    if matches!(format, Format::Template(_)) {
        return Err(Failure::usage("a template prints records, and produce prints acks")
            .next("Use -f table, json, csv or raw"));
    }
    let run = Run { args, out, report: Arc::new(Report::new(format)) };
    connect::run_to_end(async |interrupt| run.publish(interrupt).await)
}

/// One run of the command.
struct Run<'a> {
    args: &'a Produce,
    out: Out,
    report: Arc<Report>,
}

/// Why publishing stopped before the input's end.
enum Stop {
    /// A line that cannot be published.
    Input(Failure),
    /// The producer has failed; it knows why.
    Producer,
    /// Ctrl-C.
    Interrupted,
}

impl Run<'_> {
    async fn publish(self, mut interrupt: Interrupt) -> Result<Exit, Failure> {
        let producer = tokio::select! {
            producer = self.producer() => producer?,
            () = interrupt.came() => return Ok(Exit::Interrupted),
        };
        self.report.start();
        let stopped = self.send_all(&producer, &mut interrupt).await;
        // An interrupted run sends nothing more; every other sends what it has taken.
        let closed = if matches!(stopped, Err(Stop::Interrupted)) {
            producer.abort().await;
            Ok(())
        } else {
            tokio::select! {
                closed = producer.close() => closed,
                () = interrupt.came() => return Ok(self.interrupted()),
            }
        };
        let reader = self.out.write(&self.report.take_lines())?;
        let acked = self.report.acked();
        match (stopped, closed) {
            (Err(Stop::Interrupted), _) => Ok(self.interrupted()),
            (Err(Stop::Input(failure)), Ok(())) => Err(Failure {
                what: format!(
                    "{}; {} before it {} stored",
                    failure.what,
                    records(acked),
                    if acked == 1 { "is" } else { "are" }
                ),
                ..failure
            }),
            (_, Err(error)) => {
                let failure = Failure::from(error);
                let what = format!(
                    "{}; {} {} acked",
                    failure.what.trim_end_matches('.'),
                    records(acked),
                    if acked == 1 { "was" } else { "were" }
                );
                Err(Failure { what, ..failure })
            }
            (Ok(()) | Err(Stop::Producer), Ok(())) => {
                if reader == Reader::Here && self.report.is_table() {
                    return self.out.finish(self.report.summary(&self.args.topic).as_bytes(), Exit::Ok);
                }
                Ok(Exit::Ok)
            }
        }
    }

    fn interrupted(&self) -> Exit {
        let acked = self.report.acked();
        let were = if acked == 1 { "was" } else { "were" };
        talk(format_args!("interrupted; {} {were} acked", records(acked)));
        Exit::Interrupted
    }

    async fn producer(&self) -> Result<Producer, Failure> {
        let client = self.args.server.connect().await?;
        let report = Arc::clone(&self.report);
        let options = ProducerOptions {
            batch_bytes: usize::try_from(self.args.batch_bytes).unwrap_or(usize::MAX),
            linger: Duration::from_millis(self.args.linger.unsigned_abs()),
            durability: self.args.durability.map(v1::Durability::from).unwrap_or_default(),
            stop_on_failure: true,
            on_outcome: Some(Arc::new(move |outcome: &Outcome| report.take(outcome))),
            ..ProducerOptions::default()
        };
        Ok(client.producer(&self.args.topic, options).await?)
    }

    /// Publishes line by line until the input ends.
    async fn send_all(&self, producer: &Producer, interrupt: &mut Interrupt) -> Result<(), Stop> {
        let longest = if self.args.json { LONGEST_JSON } else { annals_client::MAX_RECORD_BYTES };
        let mut chunks = lines::read(self.args.files.clone(), longest);
        let keys = self.keys();
        let progress = Progress::bytes(lines::known_size(&self.args.files));
        let mut reader = Reader::Here;
        let stopped = loop {
            tokio::select! {
                () = interrupt.came() => break Err(Stop::Interrupted),
                () = self.report.changed() => {}
                chunk = chunks.recv() => match chunk {
                    None => break Ok(()),
                    Some(Err(error)) => break Err(Stop::Input(read_failure(error))),
                    Some(Ok(chunk)) => {
                        let sent = tokio::select! {
                            sent = self.send_chunk(producer, &keys, &chunk) => sent,
                            () = interrupt.came() => Err(Stop::Interrupted),
                        };
                        if sent.is_err() {
                            break sent;
                        }
                        progress.add(chunk.source_bytes());
                        progress.say(|| format!("{} acked", self.report.acked()));
                    }
                },
            }
            let lines = self.report.take_lines();
            // Whoever has seen enough acks does not want fewer records published.
            if reader == Reader::Here {
                match self.out.write(&lines) {
                    Ok(still) => reader = still,
                    Err(failure) => break Err(Stop::Input(failure)),
                }
            }
            if self.report.failed() {
                break Err(Stop::Producer);
            }
        };
        progress.clear();
        stopped
    }

    fn keys(&self) -> KeySource {
        let args = self.args;
        match (&args.key, &args.key_field, &args.key_sep) {
            (Some(key), _, _) => KeySource::Given(key.clone().into_bytes()),
            (_, Some(name), _) => KeySource::Field(name.clone()),
            (_, _, Some(separator)) => KeySource::Separator(separator.clone().into_bytes()),
            (None, None, None) => KeySource::None,
        }
    }

    async fn send_chunk(&self, producer: &Producer, keys: &KeySource, chunk: &Chunk) -> Result<(), Stop> {
        let fixed: Vec<(&str, Option<&[u8]>)> =
            self.args.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes()))).collect();
        for (number, line) in (chunk.first_line..).zip(chunk.lines()) {
            let bad = |why: &str| {
                Stop::Input(Failure::new(Exit::Failed, format!("{} line {number} {why}", chunk.source)))
            };
            let sent = if self.args.json {
                let record = json::read(line).map_err(|why| bad(&why))?;
                let own = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
                let headers: Vec<_> = own.chain(fixed.iter().copied()).collect();
                let record = NewRecord {
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                    headers: &headers,
                    timestamp_ms: record.timestamp_ms,
                    partition: self.args.partition,
                };
                send(producer, &record).await
            } else {
                let keyed = keys.split(line).map_err(|why| bad(&why))?;
                let record = NewRecord {
                    key: keyed.key.as_deref(),
                    value: Some(keyed.value),
                    headers: &fixed,
                    timestamp_ms: None,
                    partition: self.args.partition,
                };
                send(producer, &record).await
            };
            match sent {
                Ok(()) => {}
                Err(_) if self.report.failed() => return Err(Stop::Producer),
                Err(error) => return Err(bad(&format!("is refused: {}", error.message()))),
            }
        }
        Ok(())
    }
}

fn records(count: i64) -> String {
    format!("{count} record{}", if count == 1 { "" } else { "s" })
}

async fn send(producer: &Producer, record: &NewRecord<'_>) -> annals_client::Result<()> {
    loop {
        match producer.try_send(record) {
            Ok(_) => return Ok(()),
            Err(TrySendError::Full) => producer.ready().await,
            Err(TrySendError::Refused(error)) => return Err(error),
        }
    }
}

fn read_failure(error: ReadError) -> Failure {
    match error {
        ReadError::Io { source, error } => io_failure(format_args!("{source} cannot be read"), &error),
        ReadError::LineTooLong { source, line } => {
            let most = annals_client::MAX_RECORD_BYTES;
            Failure::new(
                Exit::Failed,
                format!("{source} line {line} is longer than a record may be ({most} bytes)"),
            )
        }
    }
}
