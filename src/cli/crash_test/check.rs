//! After the plug was really pulled: the acks that a listener kept, held against what the broker has.

use std::{fs, io::Read as _, path::Path};

use annals_client::{Backoff, Client, ClientOptions, v1::Durability};

use super::{
    conduct::PARTITIONS,
    findings::Findings,
    journal::{Entry, MAGIC, VERSION, entries, head},
    ledger::Ledger,
    reading,
    report::{CheckReport, level_of},
};
use crate::cli::{
    broker::Starting,
    exit::{Exit, Failure, io_failure},
};

/// Where the broker's data is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// In this directory of a test, or this data directory: a broker is started on it.
    Directory(&'a Path),
    /// Behind this server.
    Server(&'a str),
}

/// What a listener's file says of the last topic of a test.
#[derive(Debug)]
pub(super) struct Told {
    ledger: Ledger,
    level: Durability,
    consumers: u32,
    round: u32,
    /// Bytes of a frame that the listener did not get to the end of.
    torn: u64,
}

/// Reads a listener's file.
pub(super) fn told(path: &Path) -> Result<Told, Failure> {
    let failure = |what: &str| Failure::new(Exit::Failed, format!("{}: {what}", path.display()));
    let mut file = fs::File::open(path).map_err(|error| io_failure(path.display(), &error))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).map_err(|error| io_failure(path.display(), &error))?;
    let mut rest = rest.strip_prefix(&MAGIC).ok_or_else(|| failure("no file of a listener"))?;
    let mut told: Option<Told> = None;
    let (mut run, mut counts) = (0, (0, 0, 0));
    while let Some((entries, behind)) = next_frame(rest) {
        rest = behind;
        for entry in entries.ok_or_else(|| failure("an entry of another version"))? {
            match (entry, told.as_mut()) {
                (Entry::Hello { version, .. }, _) if version != VERSION => {
                    return Err(failure("written by another version"));
                }
                (Entry::Hello { level, partitions, producers, consumers, run: its, .. }, None) => {
                    (run, counts) = (its, (partitions, producers, consumers));
                    let sane = partitions == PARTITIONS && producers <= 1024 && consumers <= 1024;
                    let level = level_of(level).filter(|_| sane).ok_or_else(|| failure("its first entry"))?;
                    let ledger = Ledger::new(run, partitions, producers, consumers);
                    told = Some(Told { ledger, level, consumers, round: 1, torn: 0 });
                }
                (_, None) => return Err(failure("it does not begin with a hello")),
                (Entry::Round(round), Some(told)) => {
                    told.round = round;
                    told.ledger = Ledger::new(run, counts.0, counts.1, counts.2);
                }
                (Entry::Ack(acked), Some(told)) => told.ledger.ack(acked),
                (Entry::Commit { consumer, partition, next_offset }, Some(told)) => {
                    told.ledger.commit_acked(consumer, partition, next_offset);
                    // What was asked for after that is not known here.
                    told.ledger.commit_attempted(consumer, partition, i64::MAX);
                }
                // A test that connected again.
                (Entry::Hello { .. }, Some(_)) => {}
            }
        }
    }
    let mut told = told.ok_or_else(|| failure("no test has told it anything"))?;
    told.torn = rest.len() as u64;
    Ok(told)
}

/// The next whole frame, and what is behind it. The last one may be torn: the listener's machine may have died, too.
fn next_frame(bytes: &[u8]) -> Option<(Option<Vec<Entry>>, &[u8])> {
    let (start, rest) = bytes.split_first_chunk()?;
    let (length, crc) = head(*start)?;
    let (body, behind) = rest.split_at_checked(length)?;
    (crc32fast::hash(body) == crc).then(|| (entries(body), behind))
}

/// Compares.
pub(super) async fn run(mut told: Told, place: Place<'_>) -> Result<CheckReport, Failure> {
    let mut damages = Vec::new();
    let (broker, address) = match place {
        Place::Server(address) => (None, address.to_owned()),
        Place::Directory(directory) => {
            let data =
                if directory.join("ANNALS").exists() { directory.into() } else { directory.join("data") };
            // Before a start changes anything.
            damages = super::damages_of(&data)?;
            match Starting::spawn(&data, "127.0.0.1:0", None)?.ready().await {
                Ok(broker) => {
                    let address = broker.ready.grpc.clone();
                    (Some(broker), address)
                }
                Err(failure) => return Ok(nothing_served(&told, damages, &failure)),
            }
        }
    };
    let options = ClientOptions { connect: Backoff::default(), backoff: Backoff::default() };
    let client = Client::connect_with(&address, options).await?;
    let topic = format!("crash-test-{}", told.round);
    let may_end_early = told.level != Durability::Fsync;
    reading::tail(&client, &topic, &mut told.ledger, may_end_early).await?;
    let ends = told.ledger.ends();
    let ends = may_end_early.then_some(ends.as_slice());
    let group = |consumer| format!("{topic}-{consumer}");
    reading::commits(&client, group, told.consumers, &topic, &mut told.ledger, ends).await?;
    drop(broker);
    Ok(CheckReport {
        findings: told.ledger.findings,
        evidence: std::mem::take(&mut told.ledger.evidence),
        level: told.level,
        torn: told.torn,
        damages,
        trouble: None,
    })
}

/// A broker that does not start serves nothing: all that was acked is missing until it does.
fn nothing_served(told: &Told, damages: Vec<String>, failure: &Failure) -> CheckReport {
    let acked = told.ledger.findings;
    CheckReport {
        findings: Findings { lost: acked.acked, ..acked },
        evidence: Vec::new(),
        level: told.level,
        torn: told.torn,
        damages,
        trouble: Some(failure.to_string()),
    }
}
