//! A group goes on where it stopped, however it was stopped.

use std::{
    collections::BTreeMap,
    fs::File,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::harness::{Server, interrupt, json_lines, numbers};

fn standing(server: &Server, group: &str) -> BTreeMap<u64, i64> {
    let offsets = json_lines(&server.ok(&["group", "describe", group], b""));
    offsets
        .iter()
        .filter_map(|at| Some((at["partition"].as_u64().unwrap(), at["next_offset"].as_i64()?)))
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
            .command(&["consume", "n", "-g", "g", "--member", "me", "--follow", "-f", "%p %o\\n"])
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
    let last = server.ok(&["consume", "n", "-g", "g", "--member", "me", "-f", "%p %o\\n"], b"");
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

/// Members of a group that print as they go.
struct Printing {
    child: Child,
    path: std::path::PathBuf,
}

impl Printing {
    fn begin(server: &Server, name: &str) -> Self {
        let path = server.scratch().join(name);
        let args = ["consume", "n", "-g", "g", "--member", name, "--follow", "-f", "%p %o\\n"];
        let child = server.command(&args).stdout(File::create(&path).unwrap()).spawn().unwrap();
        Self { child, path }
    }

    fn lines(&self) -> Vec<String> {
        let printed = std::fs::read(&self.path).unwrap();
        String::from_utf8(printed).unwrap().lines().map(str::to_owned).collect()
    }

    /// Ctrl-C; how it ended.
    fn interrupt(&mut self) -> Option<i32> {
        interrupt(&self.child);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        // A test that failed leaves nobody behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Who owns how many partitions.
fn shares(server: &Server) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for line in json_lines(&server.run(&["group", "describe", "g"]).printed) {
        if let Some(member) = line["member"].as_str() {
            *shares.entry(member.to_owned()).or_default() += 1;
        }
    }
    shares
}

#[test]
fn several_readers_of_a_group_share_its_partitions_and_leave_in_order() {
    let server = Server::start();
    server.ok(&["topic", "create", "n", "--partitions", "8"], b"");
    let mut first = Printing::begin(&server, "a");
    until("the first has all", || shares(&server) == BTreeMap::from([("a".into(), 8)]));
    let mut second = Printing::begin(&server, "b");
    until("each has half", || shares(&server) == BTreeMap::from([("a".into(), 4), ("b".into(), 4)]));
    let fill = |from: u32| {
        for partition in 0..8 {
            server.ok(&["produce", "n", "-p", &partition.to_string()], &numbers(from..from + 1000));
        }
    };
    fill(0);
    until("both print", || first.lines().len() + second.lines().len() == 8000);
    assert_eq!((first.lines().len(), second.lines().len()), (4000, 4000));
    assert_eq!(first.interrupt(), Some(130));
    assert_eq!(shares(&server), BTreeMap::from([("b".into(), 8)]), "who leaves does not keep others waiting");
    fill(1000);
    until("the second goes on", || second.lines().len() == 12_000);
    assert_eq!(second.interrupt(), Some(130));
    assert_eq!(shares(&server), BTreeMap::new());
    assert_eq!(standing(&server, "g"), (0..8).map(|partition| (partition, 2000)).collect());
    let mut all = [first.lines(), second.lines()].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 16_000, "each record once");
}

#[test]
fn a_group_with_members_is_not_moved_by_who_is_none() {
    let server = Server::start();
    server.ok(&["produce", "n", "-p", "0"], &numbers(0..10));
    let mut member = Printing::begin(&server, "a");
    until("it prints", || member.lines().len() == 10);
    server.ok(&["produce", "m", "-p", "0"], &numbers(0..10));
    let ran = server.run(&["consume", "m", "-g", "g", "-p", "0", "-n", "1"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    let ran = server.run(&["group", "delete", "g", "--yes"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    let ran = server.run(&["group", "reset", "g", "-t", "n", "--to", "start", "--dry-run"]);
    assert!(ran.code != 8 && ran.said.contains("stop them first"), "{ran:?}");
    assert_eq!(member.interrupt(), Some(130));
    server.ok(&["group", "delete", "g", "--yes"], b"");
}

#[test]
fn a_reset_moves_what_its_dry_run_says() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "2"], b"");
    server.ok(&["produce", "orders", "-p", "0"], &numbers(0..10));
    server.ok(&["produce", "orders", "-p", "1"], &numbers(0..4));
    server.ok(&["consume", "orders", "-g", "billing", "-p", "0", "-n", "6"], b"");
    let reset =
        |to: &str, how: &str| server.run(&["group", "reset", "billing", "-t", "orders", "--to", to, how]);
    for (to, moved) in [
        ("start", vec![(0, Some(6), 0, 6, 0), (1, None, 0, 0, 0)]),
        ("end", vec![(0, Some(0), 10, 0, 10), (1, Some(0), 4, 0, 4)]),
        ("-3", vec![(0, Some(10), 7, 3, 0), (1, Some(4), 1, 3, 0)]),
        ("+2", vec![(0, Some(7), 9, 0, 2), (1, Some(1), 3, 0, 2)]),
        ("@-1h", vec![(0, Some(9), 0, 9, 0), (1, Some(3), 0, 3, 0)]),
        ("3", vec![(0, Some(0), 3, 0, 3), (1, Some(0), 3, 0, 3)]),
    ] {
        let dry = reset(to, "--dry-run");
        assert_eq!(dry.code, 8, "{to}: {}", dry.said);
        let real = reset(to, "--yes");
        assert_eq!(real.code, 0, "{to}: {}", real.said);
        assert_eq!(real.printed, dry.printed, "the same table");
        let rows: Vec<_> = json_lines(&real.printed)
            .iter()
            .map(|row| {
                let number = |name: &str| row[name].as_i64().unwrap();
                (
                    number("partition"),
                    row["from"].as_i64(),
                    number("to"),
                    number("records_reread"),
                    number("records_skipped"),
                )
            })
            .collect();
        assert_eq!(rows, moved, "{to}");
        // Nothing is left to move.
        if to != "+2" {
            let again = reset(to, "--dry-run");
            assert_eq!((again.code, again.printed.len()), (0, 0));
        }
    }
    assert_eq!(json_lines(&server.ok(&["consume", "orders", "-g", "billing"], b"")).len(), 8);
    let unasked = server.run(&["group", "reset", "billing", "-t", "orders", "--to", "start"]);
    assert_eq!(unasked.code, 2, "in a pipe nobody can be asked: {}", unasked.said);
}
