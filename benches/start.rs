//! How long a start takes, and what an idle server holds: on an empty directory, and after `kill -9` in the middle of writing
//! on a directory that holds 2 GiB. The built binary is started as a person starts it; ready is when its first line is there.
//!
//! `cargo bench --bench start`; with another build: `ANNALS_BIN=target/release/annals cargo bench --bench start`
//!
//! `cargo bench --bench start -- --history 0.1,1,10`: whether a start grows with what is stored. For each size (GB of records'
//! values) a directory is written, the server killed while it writes, and the last frame of the journal torn, as a power cut
//! would; five times. Then `log verify` reads all of it. The sizes have to fit on the disk of `TMPDIR`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a bench: what does not hold must stop it"
)]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

const LINE: usize = 1000;
const ROUNDS: usize = 5;

/// A server, how long it took to be ready, and what it said.
struct Started {
    child: Child,
    took: Duration,
    ready: Value,
}

fn annals() -> Command {
    Command::new(std::env::var_os("ANNALS_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_annals").into()))
}

fn start(data: &Path) -> Started {
    let began = Instant::now();
    let mut child = annals()
        .args(["serve", "--grpc", "127.0.0.1:0", "-f", "json", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let took = began.elapsed();
    Started { child, took, ready: serde_json::from_str(&line).unwrap() }
}

impl Started {
    /// SIGKILL, and nothing left of it.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Publishes without end, and kills the server as soon as so many records more are acked: batches are on their way.
    fn kill_while_writing(self, records: u64) {
        let mut publisher = annals()
            .args(["produce", "t", "--batch-bytes", "1MiB", "-f", "json"])
            .args(["--server", self.ready["grpc"].as_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = publisher.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || {
            let mut block = Vec::new();
            for number in 0..1000 {
                block.extend(format!("{number:0width$}\n", width = LINE - 1).into_bytes());
            }
            while stdin.write_all(&block).is_ok() {}
        });
        let mut acked = 0;
        for line in BufReader::new(publisher.stdout.take().unwrap()).lines() {
            let ack: Value = serde_json::from_str(&line.unwrap()).unwrap();
            acked += ack["count"].as_u64().unwrap();
            if acked >= records {
                break;
            }
        }
        assert!(acked >= records, "the publisher ended after {acked} records");
        self.kill();
        assert!(!publisher.wait().unwrap().success(), "something was on its way");
        feeder.join().unwrap();
    }

    /// `VmRSS` and `RssAnon`, MiB.
    fn memory(&self) -> (f64, f64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
        };
        (of("VmRSS"), of("RssAnon"))
    }
}

fn told(what: &str, mut rounds: Vec<(Duration, u64)>) {
    rounds.sort();
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    let (least, median, most) = (rounds[0], rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
    println!(
        "{what:32} ready after {:.1} ms ({:.1} to {:.1}), of it recovery {} ms",
        ms(median.0),
        ms(least.0),
        ms(most.0),
        median.1
    );
}

fn recovery(started: &Started) -> u64 {
    started.ready["recovery"]["milliseconds"].as_u64().unwrap()
}

/// The newest frame of the journal: its file, position and bytes.
fn newest_frame(data: &Path) -> (std::path::PathBuf, u64, u64) {
    let mut newest = None;
    for entry in fs::read_dir(data.join("journal")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.strip_prefix(data).unwrap();
        let dump = annals().args(["log", "dump", "-f", "json"]).arg(data).arg(name).output().unwrap();
        for line in String::from_utf8(dump.stdout).unwrap().lines() {
            let piece: Value = serde_json::from_str(line).unwrap();
            if piece["kind"] == "frame" && piece["verifies"] == "true" {
                let number = |name: &str| piece[name].as_str().unwrap().parse::<u64>().unwrap();
                let found = (
                    number("sequence"),
                    (file.clone(), piece["position"].as_u64().unwrap(), number("bytes")),
                );
                newest = newest.max(Some(found));
            }
        }
    }
    newest.unwrap().1
}

/// The second half of the last frame did not reach the disk.
fn tear(data: &Path) {
    let (file, position, bytes) = newest_frame(data);
    let from = bytes / 2;
    let torn = vec![0xA5; usize::try_from(bytes - from).unwrap()];
    fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(&torn, position + from).unwrap();
}

/// Starts of a directory that holds so many GB, and reading all of it.
fn history(gigabytes: f64, more: u64, rounds: usize) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as many as fit on a disk")]
    let records = (gigabytes * 1e9) as u64 / LINE as u64;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    start(&data).kill_while_writing(records);
    let mut starts = Vec::new();
    for round in 0..rounds {
        tear(&data);
        let started = start(&data);
        starts.push((started.took, recovery(&started)));
        assert_eq!(started.ready["recovery"]["damages"].as_array().unwrap().len(), 0, "{}", started.ready);
        if round + 1 < rounds {
            started.kill_while_writing(more);
        } else {
            started.kill();
        }
    }
    told(&format!("{gigabytes} GB, killed and torn"), starts);
    let mut best = Duration::MAX;
    let mut bytes = 0;
    for _ in 0..3 {
        let began = Instant::now();
        let verdict = annals().args(["log", "verify", "-f", "json"]).arg(&data).output().unwrap();
        best = best.min(began.elapsed());
        assert!(verdict.status.success());
        let verdict: Value = serde_json::from_slice(&verdict.stdout).unwrap();
        bytes = verdict["bytes"].as_u64().unwrap();
    }
    println!(
        "{:32} {:.2} GB in {:.2} s, {:.2} GB/s, best of three",
        "log verify",
        bytes as f64 / 1e9,
        best.as_secs_f64(),
        bytes as f64 / 1e9 / best.as_secs_f64()
    );
}

fn main() {
    let sizes = std::env::args().skip_while(|argument| argument != "--history").nth(1);
    if let Some(sizes) = sizes {
        for gigabytes in sizes.split(',') {
            history(gigabytes.parse().unwrap(), 300_000, ROUNDS);
        }
        return;
    }
    // `cargo test --benches` runs it, too: once, shortly.
    let short = std::env::args().any(|argument| argument == "--test");
    let (records, more, rounds) = if short { (20_000, 5_000, 1) } else { (2_147_484, 100_000, ROUNDS) };
    let folder = tempfile::tempdir().unwrap();

    let mut empty = Vec::new();
    for round in 0..rounds {
        let started = start(&folder.path().join(format!("empty-{round}")));
        empty.push((started.took, recovery(&started)));
        if round == 0 {
            std::thread::sleep(Duration::from_secs(2));
            let (all, own) = started.memory();
            println!("idle, empty                      {all:.1} MiB resident, of it {own:.1} MiB no file's");
        }
        started.kill();
    }
    told("empty directory", empty);

    let data = folder.path().join("data");
    start(&data).kill_while_writing(records);
    let mut large = Vec::new();
    for round in 0..rounds {
        let started = start(&data);
        large.push((started.took, recovery(&started)));
        if round == 0 {
            let held = started.ready["recovery"]["records"].as_u64().unwrap();
            println!(
                "after kill -9                    {held} records, {:.2} GB",
                held as f64 * LINE as f64 / 1e9
            );
            std::thread::sleep(Duration::from_secs(2));
            let (all, own) = started.memory();
            println!("idle, after recovery             {all:.1} MiB resident, of it {own:.1} MiB no file's");
        }
        started.kill_while_writing(more);
    }
    told("after kill -9 while writing", large);
    if short {
        history(0.01, 5_000, 2);
    }
}
