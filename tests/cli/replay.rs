//! A range of history once more: the same records, once each where that is promised, wherever it was stopped.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{Server, interrupt, json_lines};

/// Lines for `produce --json`: keys of a few, two types, times that lie `apart` milliseconds from each other.
fn lines(count: u32, apart: u32) -> Vec<u8> {
    let line = |n: u32| {
        format!(
            "{{\"key\":\"k{}\",\"value\":\"{n}\",\"headers\":[[\"ce_type\",\"{}\"],[\"odd\",{{\"base64\":\"/w==\"}}]],\"timestamp_ms\":{}}}\n",
            n % 7,
            if n.is_multiple_of(3) { "made" } else { "paid" },
            1_700_000_000_000_u64 + u64::from(n * apart)
        )
    };
    (0..count).map(line).collect::<String>().into_bytes()
}

/// What a record is, wherever it lies.
fn content(line: &Value) -> String {
    format!("{} {} {} {}", line["key"], line["value"], line["headers"], line["timestamp_ms"])
}

fn by_key(lines: &[Value]) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        keys.entry(line["key"].to_string()).or_default().push(content(line));
    }
    keys
}

fn values(lines: &[Value]) -> Vec<u32> {
    lines.iter().map(|line| line["value"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn what_is_replayed_is_what_was_asked_for() {
    let server = Server::start();
    server.ok(&["produce", "orders", "--json"], &lines(200, 1000));
    let all = json_lines(&server.ok(&["consume", "orders"], b""));
    let kept = |keep: &dyn Fn(u32) -> bool| {
        let mut kept: Vec<_> = values(&all).into_iter().filter(|n| keep(*n)).collect();
        kept.sort_unstable();
        kept
    };
    let replayed = |args: &[&str]| {
        let lines = json_lines(&server.ok(&[&["replay", "orders"], args].concat(), b""));
        let mut found = values(&lines);
        found.sort_unstable();
        // The table of a dry run counts the same.
        let dry = server.run(&[&["replay", "orders", "--dry-run"], args].concat());
        let counted: i64 = json_lines(&dry.printed).iter().map(|row| row["records"].as_i64().unwrap()).sum();
        assert_eq!(counted, i64::try_from(found.len()).unwrap());
        assert_eq!(dry.code, if found.is_empty() { 0 } else { 8 });
        found
    };
    assert_eq!(replayed(&[]), kept(&|_| true));
    assert_eq!(replayed(&["start..end", "--key", "k3"]), kept(&|n| n % 7 == 3));
    assert_eq!(replayed(&["--key-prefix", "k"]), kept(&|_| true));
    assert_eq!(replayed(&["--key-prefix", "K"]), kept(&|_| false));
    assert_eq!(replayed(&["--type", "made"]), kept(&|n| n % 3 == 0));
    assert_eq!(replayed(&["--header", "ce_type=paid", "--key", "k1"]), kept(&|n| n % 3 != 0 && n % 7 == 1));
    let half = "@2023-11-14T22:14:20Z..@2023-11-14T22:15:20Z";
    assert_eq!(replayed(&[half]), kept(&|n| (60..120).contains(&n)));
    assert_eq!(replayed(&["end..start"]), kept(&|_| false));
    let consumed = json_lines(&server.ok(&["consume", "orders", "--key", "k3", "--type", "made"], b""));
    assert_eq!(values(&consumed).len(), kept(&|n| n % 21 == 3).len());
}

#[test]
fn a_copy_has_every_record_once_whatever_is_killed() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "3"], b"");
    server.ok(&["topic", "create", "copy", "--partitions", "5"], b"");
    server.ok(&["produce", "orders", "--json"], &lines(40_000, 1));
    // Four seconds' worth, so that it is killed in the middle.
    let slowly = ["replay", "orders", "--into", "copy", "--speed", "10x"];
    let killed_after = |args: &[&str], least: i64| {
        let mut child = server.command(args).spawn().unwrap();
        let began = Instant::now();
        while copied(&server) <= least && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        copied(&server)
    };
    let first = killed_after(&slowly, 0);
    assert!(first > 0 && first < 40_000, "{first}");
    // What comes meanwhile is not in the range.
    server.ok(&["produce", "orders", "--json"], &lines(7, 1));
    let ran = server.run(&["replay", "orders", "--into", "copy"]);
    assert_eq!(ran.code, 6);
    assert!(ran.said.contains("--resume") && ran.said.contains("replay.orders.copy"), "{}", ran.said);
    let other = server.run(&["replay", "orders", "--into", "copy", "--key", "k1", "--resume"]);
    assert_eq!(other.code, 6, "another replay does not go on with this one: {}", other.said);
    let second = killed_after(&[&slowly[..], &["--resume"]].concat(), first);
    assert!(second > first && second < 40_000, "{second}");
    server.ok(&["replay", "orders", "--into", "copy", "--resume"], b"");
    assert_eq!(server.run(&["group", "describe", "replay.orders.copy"]).code, 3, "it is finished");
    let original = json_lines(&server.ok(&["consume", "orders"], b""));
    let copy = json_lines(&server.ok(&["consume", "copy"], b""));
    assert_eq!(copy.len(), 40_000);
    let mut expected = by_key(&original);
    for (key, records) in &mut expected {
        // The last 7 came later, one of each key.
        records.truncate(records.len() - 1);
        assert_eq!(by_key_of(&copy, key), *records, "{key}");
    }
}

fn by_key_of(lines: &[Value], key: &str) -> Vec<String> {
    let is_its = |line: &&Value| line["key"].as_str().is_some_and(|found| format!("\"{found}\"") == key);
    lines.iter().filter(is_its).map(content).collect()
}

fn copied(server: &Server) -> i64 {
    let topics = json_lines(&server.ok(&["topic", "describe", "copy"], b""));
    topics.iter().filter_map(|row| row["records"].as_i64()).sum()
}

#[test]
fn stopped_by_hand_it_goes_on_where_its_file_says() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "2"], b"");
    server.ok(&["produce", "orders", "--json"], &lines(300, 10));
    // Three seconds' worth.
    let args = ["replay", "orders", "--speed", "1x", "--resume=place", "-f", "json"];
    let mut command = server.command(&args);
    let child = command.current_dir(server.scratch()).spawn().unwrap();
    let place = server.scratch().join("place");
    let began = Instant::now();
    while !place.exists() && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let first = values(&json_lines(&output.stdout));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("stopped") && said.contains("place"), "{said}");
    assert!(!first.is_empty() && first.len() < 300, "{}", first.len());
    // By time, over both partitions: the n-th record is the n-th.
    assert_eq!(first, (0..u32::try_from(first.len()).unwrap()).collect::<Vec<_>>());
    server.ok(&["produce", "orders", "--json"], &lines(20, 1));
    let mut command =
        server.command(&["replay", "orders", "--resume=place", "--speed", "1000x", "-f", "json"]);
    command.current_dir(server.scratch());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let rest = values(&json_lines(&output.stdout));
    assert_eq!([first, rest].concat(), (0..300).collect::<Vec<_>>());
}

#[test]
fn spacing_is_kept_or_made_closer() {
    let server = Server::start();
    server.ok(&["produce", "orders", "--json", "-p", "0"], &lines(11, 100));
    for (speed, least) in [("1x", 1000), ("10x", 100)] {
        let began = Instant::now();
        let replayed = json_lines(&server.ok(&["replay", "orders", "--speed", speed], b""));
        // No sooner; how much later is the machine's business.
        assert!(began.elapsed() >= Duration::from_millis(least), "{speed}: {:?}", began.elapsed());
        assert_eq!(values(&replayed), (0..11).collect::<Vec<_>>());
    }
}

#[test]
fn a_range_is_given_to_a_group_of_its_own() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "2"], b"");
    server.ok(&["produce", "orders", "--json"], &lines(60, 1000));
    server.ok(&["consume", "orders", "-g", "billing"], b"");
    let billing = server.ok(&["group", "describe", "billing"], b"");
    let half = "@2023-11-14T22:13:30Z..@2023-11-14T22:13:50Z";
    let rows = json_lines(
        &server.ok(&["replay", "orders", half, "--into-group", "again", "--key-prefix", "k"], b""),
    );
    let counted: i64 =
        rows.iter().map(|row| row["to"].as_i64().unwrap() - row["from"].as_i64().unwrap()).sum();
    assert_eq!((rows.len(), counted), (2, 20));
    let stands = json_lines(&server.ok(&["group", "describe", "again"], b""));
    assert_eq!(stands.len(), 2);
    for (row, at) in rows.iter().zip(&stands) {
        assert_eq!((&row["partition"], &row["from"]), (&at["partition"], &at["next_offset"]));
    }
    assert_eq!(
        server.run(&["replay", "orders", half, "--into-group", "again"]).code,
        6,
        "it is there already"
    );
    let now = server.ok(&["group", "describe", "billing"], b"");
    let place =
        |printed: &[u8]| json_lines(printed).iter().map(|row| row["next_offset"].clone()).collect::<Vec<_>>();
    assert_eq!(place(&now), place(&billing), "those at work stand where they stood");
}
