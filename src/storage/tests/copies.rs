//! A directory that somebody copies file by file while a server writes into it: nothing is promised of such a copy, but one
//! thing. What it serves was stored there, at that offset; what does not fit together is told.

use super::*;
use crate::storage::disk::{Access, EntryKind};

const COPIES: u64 = 150;

/// What is stored at an offset of a partition: its own bytes, and no other offset's.
fn value(partition: u32, offset: i64) -> Vec<u8> {
    format!("{partition}/{offset} ").into_bytes().repeat(20 + usize::try_from(offset * 7 % 160).unwrap())
}

fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

struct Writer {
    bench: Bench,
    written: [i64; 2],
    random: u64,
}

impl Writer {
    fn step(&mut self) {
        for _ in 0..next(&mut self.random) % 10 {
            let drawn = next(&mut self.random);
            match drawn % 8 {
                0 => drop(self.bench.snapshot(false)),
                1 | 2 => drop(self.bench.storage.commit_step()),
                3 => while self.bench.storage.upkeep_step() {},
                _ => self.append((drawn >> 32) as u32 % 2),
            }
        }
    }

    fn append(&mut self, partition: u32) {
        let offset = &mut self.written[partition as usize];
        let to = [(self.bench.partition(1, partition), &value(partition, *offset)[..])];
        if self.bench.append(&to, Mode { level: Level::Os, atomic: false }, &[]).is_ok() {
            *offset += 1;
        } else {
            // The journal has no room: what it holds goes first.
            self.bench.storage.commit_step();
            self.bench.snapshot(false);
        }
    }

    /// One directory after the other, one file after the other, as programs that copy do; the server writes meanwhile.
    fn copy(&mut self, dir: &str, to: &MemoryDisk) {
        let mut entries = self.bench.disk.list(dir).unwrap();
        let turn = (next(&mut self.random) as usize) % entries.len().max(1);
        entries.rotate_left(turn);
        for entry in entries {
            self.step();
            let path = if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
            match entry.kind {
                EntryKind::Directory => {
                    to.create_dir(&path).unwrap();
                    self.copy(&path, to);
                }
                _ => self.copy_file(&path, to),
            }
        }
    }

    fn copy_file(&mut self, path: &str, to: &MemoryDisk) {
        // It may have gone since it was listed.
        let Ok(from) = self.bench.disk.open(path, Access::Read) else { return };
        let half = from.len().unwrap() / 2;
        let mut bytes = from.view(0, half as usize).unwrap().to_vec();
        self.step();
        let rest = from.len().unwrap().saturating_sub(half);
        bytes.extend_from_slice(&from.view(half, rest as usize).unwrap());
        to.create(path).unwrap().write_at(&[&bytes], 0).unwrap();
    }
}

/// What a copy came to.
#[derive(Debug, Default)]
struct Counts {
    refused: u64,
    with_gaps: u64,
    whole: u64,
}

fn options() -> Options {
    Options { ring_bytes: 512 * 1024, ring_file_bytes: 256 * 1024, pending_bytes: 256 * 1024, ..tiny() }
}

fn judge(copy: &MemoryDisk, written: [i64; 2], counts: &mut Counts) {
    let Ok(bench) = Bench::open(copy, options()) else {
        counts.refused += 1;
        return;
    };
    let mut gaps = 0;
    for (number, written) in (0..).zip(written) {
        let Some(partition) = bench.storage.partition(key(1, number)) else { continue };
        let end = partition.high_watermark();
        assert!(end <= written, "{number} ends at {end}, {written} were written");
        let mut from = partition.bounds().log_start;
        while from < end {
            let Ok(read) = partition.read(from, 1 << 20, true) else {
                gaps += 1;
                break;
            };
            for (offset, found) in matrix::values_in(&read) {
                assert_eq!(found, value(number, offset), "{number} at {offset}");
            }
            gaps += read.gaps.len();
            assert!(read.next_offset > from);
            from = read.next_offset;
        }
    }
    if gaps > 0 || !bench.report.damages.is_empty() {
        counts.with_gaps += 1;
    } else {
        counts.whole += 1;
    }
}

#[test]
fn a_copy_made_file_by_file_under_a_writer_serves_a_prefix_or_tells() {
    let mut counts = Counts::default();
    for seed in 1..=COPIES {
        let bench = Bench::open(&MemoryDisk::new(), options()).unwrap();
        bench.declare(1, 2, if seed % 2 == 0 { Level::Fsync } else { Level::Os });
        bench.storage.commit_step();
        let mut writer = Writer { bench, written: [0; 2], random: seed * 0x9E37_79B9 };
        for _ in 0..8 {
            writer.step();
        }
        let copy = MemoryDisk::new();
        writer.copy("", &copy);
        judge(&copy, writer.written, &mut counts);
    }
    assert!(counts.refused > 0 && counts.with_gaps > 0 && counts.whole > 0, "{counts:?}");
}
