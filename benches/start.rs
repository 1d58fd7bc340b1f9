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

/// A server, and what it said.
struct Started {
    child: Child,
    cost: Cost,
    ready: Value,
}

/// What a start took. On a machine that does other things the first says more about those than about the start: how long
/// its threads stood in line for a processor is told beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    ready: Duration,
    recovery_ms: u64,
    worked: Duration,
    stood: Duration,
    /// Calls that read, and minor page faults.
    reads: u64,
    faults: u64,
}

impl Cost {
    /// Asked at the moment the first line is there.
    fn of(child: &Child, ready: Duration) -> Self {
        let proc = Path::new("/proc").join(child.id().to_string());
        let (mut worked, mut stood) = (0, 0);
        for task in fs::read_dir(proc.join("task")).unwrap() {
            // A thread may have ended.
            let times = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
            let mut times = times.split_whitespace().map(|time| time.parse::<u64>().unwrap());
            worked += times.next().unwrap_or(0);
            stood += times.next().unwrap_or(0);
        }
        let io = fs::read_to_string(proc.join("io")).unwrap();
        let calls = io.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap();
        let stat = fs::read_to_string(proc.join("stat")).unwrap();
        // The eighth behind the name, which may hold anything.
        let faults = stat.rsplit(')').next().unwrap().split_whitespace().nth(7).unwrap().parse().unwrap();
        let (worked, stood) = (Duration::from_nanos(worked), Duration::from_nanos(stood));
        Self { ready, recovery_ms: 0, worked, stood, reads: calls, faults }
    }
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
    let mut cost = Cost::of(&child, began.elapsed());
    let ready: Value = serde_json::from_str(&line).unwrap();
    cost.recovery_ms = ready["recovery"]["milliseconds"].as_u64().unwrap();
    Started { child, cost, ready }
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

fn told(what: &str, mut rounds: Vec<Cost>) {
    rounds.sort();
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    let (least, median, most) = (rounds[0], rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
    println!(
        "{what:32} ready after {:.1} ms ({:.1} to {:.1}), of it recovery {} ms; worked {:.1} ms, stood in line {:.1} ms, {} reads, {} faults",
        ms(median.ready),
        ms(least.ready),
        ms(most.ready),
        median.recovery_ms,
        ms(median.worked),
        ms(median.stood),
        median.reads,
        median.faults,
    );
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
        starts.push(started.cost);
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
    // `cargo test --benches` runs it, too, once and shortly: only `cargo bench` says that it is one.
    let short = std::env::args().all(|argument| argument != "--bench");
    let (records, more, rounds) = if short { (20_000, 5_000, 1) } else { (2_147_484, 100_000, ROUNDS) };
    let folder = tempfile::tempdir().unwrap();

    let mut empty = Vec::new();
    for round in 0..rounds {
        let started = start(&folder.path().join(format!("empty-{round}")));
        empty.push(started.cost);
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
        large.push(started.cost);
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
