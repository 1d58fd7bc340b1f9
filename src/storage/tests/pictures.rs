//! The hexdumps of `docs/format.md`: byte for byte what this release writes, and the numbers beside them are in the bytes.
//!
//! A block opens with ```` ```hex PATH ````. A line of it is a position, bytes and what they are; `= N` says that they are that
//! number, as a little-endian integer or a varint, with or without a tag before it. Lines follow each other without a gap,
//! but where a line of dots stands.

use super::*;
use crate::storage::disk::Access;

/// A directory with one file of each kind: three batches in the journal, a closed segment, an open one, two snapshots.
fn directory() -> MemoryDisk {
    let bench = Bench::open(&MemoryDisk::new(), tiny()).unwrap();
    bench.declare(1, 1, Level::Fsync);
    bench.storage.commit_step();
    bench.put(1, 0, b"first");
    bench.storage.commit_step();
    bench.snapshot(false);
    for value in [[b'x'; 3000], [b'y'; 3000]] {
        bench.put(1, 0, &value);
        bench.storage.commit_step();
    }
    while bench.storage.upkeep_step() {}
    bench.snapshot(false);
    bench.disk.clone()
}

/// The index of keys of a segment in whose first three records two keys come: the records of [`directory`] have none.
fn example_keys() -> Vec<u8> {
    use crate::storage::{index::Owner, keys};
    let partition = [&topic(1).as_bytes()[..], &0_u32.to_le_bytes()].concat();
    let owner = Owner { partition: &partition, generation: 0 };
    let subject = keys::Subject { owner, base: 0, file_crc32: 0xF8F3_5E69 };
    let record = |(offset, key): (u64, &[u8])| u64::from(keys::fingerprint(key)) << 32 | offset;
    let records = [(0, &b"LX-1"[..]), (1, b"LX-2"), (2, b"LX-1")];
    keys::encode(keys::Postings::of(&mut records.map(record), 0), &[0], subject, 1 << 20, 3)
}

/// A line of a block.
enum Line {
    Dots,
    Bytes { at: usize, bytes: Vec<u8>, says: String },
}

fn line(text: &str) -> Option<Line> {
    if text == "...." {
        return Some(Line::Dots);
    }
    let (at, rest) = text.split_once("  ")?;
    let (hex, says) = rest.trim_start().split_once("  ").unwrap_or((rest, ""));
    let bytes: Result<_, _> = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16)).collect();
    let at = usize::from_str_radix(at, 16).ok()?;
    Some(Line::Bytes { at, bytes: bytes.ok()?, says: says.trim().to_owned() })
}

/// Path and lines of each block of a page.
fn blocks(page: &str) -> Vec<(String, Vec<&str>)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(path) = line.strip_prefix("```hex ") {
            blocks.push((path.to_owned(), lines.by_ref().take_while(|line| *line != "```").collect()));
        }
    }
    blocks
}

/// What a run of bytes may stand for.
fn numbers(bytes: &[u8]) -> Vec<u64> {
    let mut numbers = Vec::new();
    for bytes in [bytes, bytes.get(1..).unwrap_or_default()] {
        if bytes.len() <= 8 {
            numbers.push(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        }
        let ends = bytes.iter().position(|byte| byte & 0x80 == 0);
        if ends.is_some_and(|last| last + 1 == bytes.len()) && bytes.len() <= 9 {
            numbers.push(bytes.iter().rev().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7F)));
        }
    }
    numbers
}

/// The number that a line says its bytes are: what follows `=`, up to a colon.
fn said(says: &str) -> Option<u64> {
    let (_, number) = says.split_once(" = ")?;
    number.split(':').next()?.trim().parse().ok()
}

/// Complaints about a block, against the file it shows.
fn compare(lines: &[&str], file: &[u8]) -> Vec<String> {
    let mut complaints = Vec::new();
    // What the lines after the first of a run go on with.
    let (mut next, mut run) = (Some(0), (Vec::new(), String::new()));
    let mut judge = |(bytes, says): &(Vec<u8>, String)| match said(says) {
        Some(number) if !numbers(bytes).contains(&number) => {
            complaints.push(format!("{bytes:02x?} is not `{says}`"));
        }
        None if says.contains('=') => complaints.push(format!("`{says}` says no number")),
        _ => {}
    };
    let mut wrong = Vec::new();
    for text in lines {
        match line(text) {
            Some(Line::Dots) => next = None,
            Some(Line::Bytes { at, bytes, says }) => {
                if next.is_some_and(|next| next != at) {
                    wrong.push(format!("{text}: does not follow"));
                }
                if file.get(at..at + bytes.len()) != Some(&bytes[..]) {
                    wrong.push(format!("{text}: the file has other bytes"));
                }
                next = Some(at + bytes.len());
                if says.is_empty() {
                    run.0.extend(bytes);
                } else {
                    judge(&run);
                    run = (bytes, says);
                }
            }
            None => wrong.push(format!("{text}: is no line of a dump")),
        }
    }
    judge(&run);
    complaints.extend(wrong);
    complaints
}

fn kind(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap();
    let kind = path.split(['/', '-']).next().unwrap();
    if kind == "topics" { name.rsplit('.').next().unwrap() } else { kind }
}

#[test]
fn the_documented_bytes_are_those_that_are_written() {
    let disk = directory();
    let page = include_str!("../../../docs/format.md");
    let blocks = blocks(page);
    for (path, lines) in &blocks {
        if path == "example.keys" {
            assert_eq!(compare(lines, &example_keys()), Vec::<String>::new(), "{path}");
            continue;
        }
        let file = disk.open(path, Access::Read).unwrap_or_else(|_| panic!("{path} is not in the directory"));
        let bytes = file.view(0, file.len().unwrap() as usize).unwrap();
        assert!(lines.len() > 5, "{path}: too short to show anything");
        assert_eq!(compare(lines, &bytes), Vec::<String>::new(), "{path}");
    }
    let shown: std::collections::BTreeSet<&str> = blocks.iter().map(|(path, _)| kind(path)).collect();
    assert_eq!(shown, ["ANNALS", "example.keys", "index", "journal", "log", "snapshot", "time"].into());
}

#[test]
fn a_dump_that_is_not_true_is_seen() {
    let file = [1, 0, 0, 0, 0x85, 0x01, 9];
    let complaints = |lines: &[&str]| compare(lines, &file).len();
    assert_eq!(
        complaints(&["0000  01 00 00 00  one = 1", "0004  85 01  varint = 133: words", "0006  09  rest"]),
        0
    );
    assert_eq!(
        complaints(&["0000  01 00", "0002  00 00  = 1"]),
        1,
        "the number of a run is that of all its bytes"
    );
    assert_eq!(complaints(&["0000  01 00 00 00  one = 2"]), 1);
    assert_eq!(complaints(&["0000  01 00 00 00  one = some"]), 1);
    assert_eq!(complaints(&["0000  01 00 00 01  bytes"]), 1);
    assert_eq!(complaints(&["0000  01 00  two", "0003  00  a gap"]), 1);
    assert_eq!(complaints(&["0000  01 00  two", "....", "0006  09  after dots"]), 0);
    assert_eq!(complaints(&["0006  09 00  beyond the end"]), 2);
    assert_eq!(complaints(&["words"]), 1);
}
