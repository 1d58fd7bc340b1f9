//! A group goes on where it stopped, however it was stopped.

use std::{
    collections::BTreeMap,
    fs::File,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::harness::{Server, json_lines, numbers};

fn standing(server: &Server, group: &str) -> BTreeMap<u64, i64> {
    let offsets = json_lines(&server.ok(&["group", "describe", group], b""));
    offsets
        .iter()
        .map(|at| (at["partition"].as_u64().unwrap(), at["next_offset"].as_i64().unwrap()))
        .collect()
}

#[test]
fn each_record_is_printed_once_over_several_runs() {
    let server = Server::start();
    server.ok(&["produce", "n", "-p", "0"], &numbers(0..5000));
    let mut printed = Vec::new();
    for count in ["1", "999", "0", "3000"] {
        printed.extend(server.ok(&["consume", "n", "-g", "g", "-n", count, "-f", "raw"], b""));
    }
    assert_eq!(standing(&server, "g"), BTreeMap::from([(0, 4000)]));
    printed.extend(server.ok(&["consume", "n", "-g", "g", "-f", "raw"], b""));
    assert_eq!(printed, numbers(0..5000));
    assert_eq!(server.ok(&["consume", "n", "-g", "g", "-f", "raw"], b""), b"");
}

#[test]
fn a_killed_reader_prints_nothing_of_what_it_committed_again_and_skips_nothing() {
    let server = Server::start();
    server.ok(&["produce", "n"], &numbers(0..60_000));
    let path = server.scratch().join("first");
    for _ in 0..5 {
        let out = File::options().create(true).append(true).open(&path).unwrap();
        let mut child = server
            .command(&["consume", "n", "-g", "g", "--follow", "-f", "%p %o\\n"])
            .stdout(Stdio::from(out))
            .spawn()
            .unwrap();
        let before = std::fs::metadata(&path).unwrap().len();
        let begun = Instant::now();
        while std::fs::metadata(&path).unwrap().len() == before && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // A kill in the middle of a write leaves a line cut off: it was not committed and comes again.
        let printed = std::fs::read(&path).unwrap();
        let whole = printed.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        File::options().write(true).open(&path).unwrap().set_len(whole as u64).unwrap();
    }
    let last = server.ok(&["consume", "n", "-g", "g", "-f", "%p %o\\n"], b"");
    let text = [std::fs::read(&path).unwrap(), last].concat();
    let mut seen = BTreeMap::<(u32, i64), u32>::new();
    for line in String::from_utf8(text).unwrap().lines() {
        let (partition, offset) = line.split_once(' ').unwrap();
        *seen.entry((partition.parse().unwrap(), offset.parse().unwrap())).or_default() += 1;
    }
    assert_eq!(seen.len(), 60_000, "some record was never printed");
    let ends: i64 = standing(&server, "g").values().sum();
    assert_eq!(ends, 60_000);
}

#[test]
fn a_group_is_not_moved_back_nor_read_by_two() {
    let server = Server::start();
    server.ok(&["produce", "n", "-p", "0"], &numbers(0..10));
    server.ok(&["consume", "n", "-g", "g", "-n", "5"], b"");
    let back = server.run(&["consume", "n", "-g", "g", "-o", "start"]);
    assert_eq!(back.code, 6);
    assert!(back.said.contains("stands at 5") && back.said.contains("leave out -g"), "{}", back.said);
    assert_eq!(server.ok(&["consume", "n", "-g", "g", "-o", "+2", "-n", "1", "-f", "%v"], b""), b"7");
    assert_eq!(standing(&server, "g"), BTreeMap::from([(0, 8)]));
}

#[test]
fn a_killed_server_loses_no_commit() {
    let mut server = Server::start();
    server.ok(&["produce", "n", "-p", "0"], &numbers(0..10));
    server.ok(&["consume", "n", "-g", "g", "-n", "4"], b"");
    server.kill();
    let ran = server.run(&["consume", "n", "-g", "g"]);
    assert_eq!(ran.code, 5);
    assert!(ran.said.contains("annals serve"), "{}", ran.said);
}
