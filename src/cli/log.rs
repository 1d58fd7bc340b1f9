//! `annals log`: looks at a data directory without a server. Reads only.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};

use super::{
    exit::{Exit, Failure, io_failure},
    format::{Format, push_json_string},
    out::{Out, Reader},
    progress::Progress,
    rows::{grouped, size},
};
use crate::{
    state::State,
    storage::{self, Damage, Disk, LockError, OpenError, Piece, RealDisk, Verdict},
};

/// Look at a data directory without a server
#[derive(Args, Debug)]
pub(crate) struct Log {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
    Dump(Dump),
}

/// Check everything a data directory holds: journal, snapshots, segments, indexes
///
/// Ends with 0 if it is intact, 7 if something is damaged, 1 if it could not be checked. The server must not be running.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals log verify ./annals-data")]
struct Verify {
    /// The data directory
    directory: PathBuf,
    /// How to print: table or json (a line for each damage, then one for the whole) [default: table on a terminal, json in a
    /// pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
}

/// Print what a file of a data directory says, piece by piece; without a file, which files there are
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals log dump ./annals-data ANNALS")]
struct Dump {
    /// The data directory
    directory: PathBuf,
    /// A file in it, as the list names it
    file: Option<String>,
    /// How to print: table or json [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
}

pub(crate) fn run(args: &Log) -> Result<Exit, Failure> {
    match &args.command {
        Command::Verify(args) => verify(args),
        Command::Dump(args) => dump(args),
    }
}

/// `true` for JSON lines.
fn is_json(asked: Option<&Format>, out: Out) -> Result<bool, Failure> {
    match Format::choose(asked, out.terminal) {
        Format::Table => Ok(false),
        Format::Json => Ok(true),
        Format::Csv | Format::Raw | Format::Template(_) => Err(Failure::usage("-f is table or json here")),
    }
}

fn open(directory: &Path) -> Result<Arc<dyn Disk>, Failure> {
    match RealDisk::open_at_rest(directory) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(error) => {
            let failure =
                Failure::new(Exit::Failed, format!("{} cannot be checked: {error}", directory.display()));
            Err(match error {
                LockError::InUse { .. } => failure.next("Stop the server first"),
                LockError::NotFound => failure.next("Give the server's --data directory"),
                _ => failure,
            })
        }
    }
}

fn not_checked(directory: &Path, error: &OpenError) -> Failure {
    Failure::new(Exit::Failed, format!("{} could not be checked: {error}", directory.display()))
}

fn verify(args: &Verify) -> Result<Exit, Failure> {
    let out = Out::new();
    let json = is_json(args.format.as_ref(), out)?;
    let disk = open(&args.directory)?;
    let progress = Progress::bytes(None);
    let mut seen = 0;
    let verdict = storage::verify(&disk, &mut State::default(), &mut |bytes| {
        progress.add(bytes.saturating_sub(seen));
        seen = bytes;
    });
    progress.clear();
    let verdict = verdict.map_err(|error| not_checked(&args.directory, &error))?;
    let exit = if verdict.damages.is_empty() { Exit::Ok } else { Exit::Damaged };
    let mut bytes = Vec::new();
    if json {
        for damage in &verdict.damages {
            push_damage(&mut bytes, damage);
        }
        push_verdict(&mut bytes, &verdict);
    } else {
        bytes.extend_from_slice(told(&args.directory, &verdict).as_bytes());
    }
    out.finish(&bytes, exit)
}

fn push_damage(out: &mut Vec<u8>, damage: &Damage) {
    push_text(out, "{\"damage\":", &damage.what);
    push_text(out, ",\"file\":", &damage.file);
    out.extend_from_slice(format!(",\"position\":{}", damage.position).as_bytes());
    match damage.partition {
        Some(key) => {
            push_text(out, ",\"topic_id\":", &key.topic.to_string());
            out.extend_from_slice(format!(",\"partition\":{}", key.partition).as_bytes());
        }
        None => out.extend_from_slice(b",\"topic_id\":null,\"partition\":null"),
    }
    match damage.offsets {
        Some((first, last)) => {
            out.extend_from_slice(format!(",\"first_offset\":{first},\"last_offset\":{last}}}\n").as_bytes());
        }
        None => out.extend_from_slice(b",\"first_offset\":null,\"last_offset\":null}\n"),
    }
}

fn push_verdict(out: &mut Vec<u8>, verdict: &Verdict) {
    let word = if verdict.damages.is_empty() { "intact" } else { "damaged" };
    let counts = format!(
        "{{\"verdict\":\"{word}\",\"damages\":{},\"topics\":{},\"partitions\":{},\"segments\":{},\"batches\":{},\
         \"records\":{},\"bytes\":{},\"notes\":[",
        verdict.damages.len(),
        verdict.topics,
        verdict.partitions,
        verdict.segments,
        verdict.batches,
        verdict.records,
        verdict.bytes
    );
    out.extend_from_slice(counts.as_bytes());
    for (index, note) in verdict.notes.iter().enumerate() {
        push_text(out, if index == 0 { "" } else { "," }, note);
    }
    out.extend_from_slice(b"]}\n");
}

fn push_text(out: &mut Vec<u8>, before: &str, text: &str) {
    out.extend_from_slice(before.as_bytes());
    push_json_string(out, text);
}

fn told(directory: &Path, verdict: &Verdict) -> String {
    let count = |number: u64| grouped(i64::try_from(number).unwrap_or(i64::MAX));
    let mut lines = Vec::new();
    for damage in &verdict.damages {
        let place = match (damage.partition, damage.offsets) {
            (Some(key), Some((first, last))) => {
                format!("  {}[{}] offsets {first} to {last}", key.topic, key.partition)
            }
            (Some(key), None) => format!("  {}[{}]", key.topic, key.partition),
            (None, _) => String::new(),
        };
        lines.push(format!("damaged  {} at byte {}{place}: {}", damage.file, damage.position, damage.what));
    }
    lines.extend(verdict.notes.iter().map(|note| format!("note     {note}")));
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

fn dump(args: &Dump) -> Result<Exit, Failure> {
    let out = Out::new();
    let json = is_json(args.format.as_ref(), out)?;
    let disk = open(&args.directory)?;
    let Some(file) = &args.file else {
        let files =
            storage::files(&disk).map_err(|error| io_failure("the directory cannot be listed", &error))?;
        let mut bytes = Vec::new();
        for file in files {
            if json {
                push_text(&mut bytes, "{\"file\":", &file);
                bytes.extend_from_slice(b"}\n");
            } else {
                bytes.extend_from_slice(file.as_bytes());
                bytes.push(b'\n');
            }
        }
        return out.finish(&bytes, Exit::Ok);
    };
    let mut failed = None;
    let mut bytes = Vec::new();
    storage::dump(&disk, file, &mut |piece| {
        push_piece(&mut bytes, &piece, json);
        let written = out.write(&bytes);
        bytes.clear();
        match written {
            Ok(Reader::Here) => true,
            Ok(Reader::Gone) => false,
            Err(failure) => {
                failed = Some(failure);
                false
            }
        }
    })
    .map_err(|error| not_checked(&args.directory, &error))?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    Ok(Exit::Ok)
}

fn push_piece(out: &mut Vec<u8>, piece: &Piece, json: bool) {
    if json {
        out.extend_from_slice(
            format!("{{\"position\":{},\"kind\":\"{}\"", piece.position, piece.kind).as_bytes(),
        );
        for (name, value) in &piece.fields {
            push_text(out, ",", name);
            push_text(out, ":", value);
        }
        out.extend_from_slice(b"}\n");
        return;
    }
    let mut line = format!("{:>10}  {:<8}", piece.position, piece.kind);
    for (name, value) in &piece.fields {
        line += "  ";
        line += name;
        line += "=";
        line += value;
    }
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}
