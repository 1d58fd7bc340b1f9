//! `crash-test` itself: a short run, a plug that is pulled (both processes killed), and an oracle that can say no.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::harness::{Ran, annals, interrupt, json_lines};

/// The one object that a test prints.
fn report(ran: &Ran) -> Value {
    let lines = json_lines(&ran.printed);
    assert_eq!(lines.len(), 1, "{}", ran.said);
    lines.into_iter().next().unwrap()
}

#[test]
fn a_short_run_keeps_every_promise_and_says_what_it_did_not_test() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = annals(&["crash-test", "--kills", "3", "--cuts", "20", "--durability", "os"]);
    let ran: Ran = command.current_dir(folder.path()).output().unwrap().into();
    let report = report(&ran);
    assert_eq!((ran.code, report["verdict"].as_str()), (0, Some("kept")), "{report:#}");
    assert!(report["kills_with_batches_in_flight"].as_u64() >= Some(3), "{report:#}");
    assert_eq!(report["kills_within_50ms_of_start"], 20);
    assert!(report["acked"].as_u64() > Some(0) && report["acked"] == report["found"], "{report:#}");
    for count in ["lost", "out_of_order", "twice", "holes", "altered", "commits_back", "half_requests"] {
        assert_eq!(report[count], 0, "{count}: {report:#}");
    }
    assert_eq!(report["model"]["seeds"], 20);
    assert!(report["not_tested"][0].as_str().unwrap().contains("power loss"), "{report:#}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "what it made is gone");
}

/// A listener, and where it writes.
struct Listener {
    child: Child,
    address: String,
    file: PathBuf,
}

impl Listener {
    fn start(folder: &Path) -> Self {
        let file = folder.join("acks");
        let mut command = annals(&["crash-test", "--listen", "127.0.0.1:0", "--to"]);
        let mut child = command.arg(&file).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap().split(',').next().unwrap().to_owned();
        Self { child, address, file }
    }
}

/// Processes that a process has started.
fn children(pid: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// The life that the newest ack in a listener's file is of; 0 if there is none.
fn last_life(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap_or_default();
    let (mut rest, mut life) = (bytes.get(8..).unwrap_or_default(), 0);
    while let Some(length) = rest.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize) {
        let Some(entries) = rest.get(8..8 + length) else { break };
        let acks = entries.chunks(40).filter(|entry| entry[0] == 3);
        life = acks.map(|entry| u64::from_le_bytes(entry[32..40].try_into().unwrap())).fold(life, u64::max);
        rest = &rest[8 + length..];
    }
    life
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // It may be gone.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn check(file: &Path, directory: &Path) -> (i32, Value) {
    let mut command = annals(&["crash-test", "--check"]);
    let ran: Ran = command.arg(file).arg("--dir").arg(directory).output().unwrap().into();
    (ran.code, report(&ran))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// The first segment of a partition that has one.
fn first_segment(data: &Path) -> PathBuf {
    let dirs =
        |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let partitions = dirs(&data.join("topics")).into_iter().flat_map(|topic| dirs(&topic));
    let mut segments = partitions.flat_map(|partition| dirs(&partition));
    segments.find(|path| path.ends_with("00000000000000000000-0.log")).expect("a partition was written to")
}

#[test]
fn with_the_plug_pulled_the_other_machine_s_acks_are_all_there_and_a_loss_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("plug");
    let mut listener = Listener::start(folder.path());
    let mut command = annals(&["crash-test", "--duration", "1h", "--producers", "2", "--journal"]);
    command.arg(&listener.address).arg("--dir").arg(&directory).stderr(Stdio::null()).stdout(Stdio::null());
    let mut test = command.spawn().unwrap();
    // Some lives, so that the first one's events are in segments alone.
    let acked = || last_life(&listener.file);
    for _ in 0..1200 {
        std::thread::sleep(Duration::from_millis(50));
        if acked() > 5 {
            break;
        }
    }
    let brokers = children(test.id());
    test.kill().unwrap();
    brokers.into_iter().for_each(kill);
    test.wait().unwrap();
    assert!(acked() > 5, "the test told the listener of {} lives", acked());
    interrupt(&listener.child);
    assert!(listener.child.wait().unwrap().success(), "Ctrl-C is how a listener ends");

    let (cut, torn) = (folder.path().join("cut"), folder.path().join("torn"));
    copy(&directory, &cut);
    let (code, report) = check(&listener.file, &directory);
    assert_eq!((code, report["verdict"].as_str()), (0, Some("kept")), "{report:#}");
    assert!(report["acked"].as_u64() > Some(0) && report["acked"] == report["found"], "{report:#}");

    let segment = first_segment(&cut.join("data"));
    let mut bytes = fs::read(&segment).unwrap();
    bytes.drain(150..250);
    fs::write(&segment, bytes).unwrap();
    let (code, report) = check(&listener.file, &cut);
    assert_eq!((code, report["verdict"].as_str()), (7, Some("broken")), "{report:#}");
    assert!(report["lost"].as_u64() > Some(0), "{report:#}");

    // A file of acks that ends in the middle of a frame is read as far as it goes.
    let bytes = fs::read(&listener.file).unwrap();
    fs::write(&torn, &bytes[..bytes.len() - 7]).unwrap();
    let (code, report) = check(&torn, &directory);
    assert_eq!(code, 0, "{report:#}");
    assert!(report["torn_bytes_of_the_file"].as_u64() > Some(0), "{report:#}");
}

#[test]
fn what_cannot_be_tested_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    let acks = folder.path().join("acks");
    fs::write(&acks, b"something else").unwrap();
    let acks = acks.to_str().unwrap();
    for (args, code) in [
        (&["crash-test", "--dir", path] as &[&str], 6),
        (&["crash-test", "--journal", "127.0.0.1:1"], 5),
        (&["crash-test", "--check", acks], 2),
        (&["crash-test", "--check", acks, "--dir", path], 1),
        (&["crash-test", "--listen", "127.0.0.1:0"], 2),
        (&["crash-test", "--listen", "127.0.0.1:0", "--to", acks], 6),
    ] {
        let ran: Ran = annals(args).current_dir(folder.path()).output().unwrap().into();
        assert_eq!(ran.code, code, "{args:?}: {}", ran.said);
        assert!(ran.printed.is_empty() && !ran.said.is_empty(), "{args:?}");
    }
}
