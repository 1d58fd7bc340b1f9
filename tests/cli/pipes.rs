//! What a pipe gets: data, all of it, and nothing else.

use std::{
    io::{Read as _, Write as _},
    process::Stdio,
    time::Duration,
};

use crate::harness::{Server, interrupt, json_lines, numbers};

#[test]
fn piped_output_is_json_to_the_last_byte() {
    let server = Server::start();
    let acks = json_lines(&server.ok(&["produce", "orders", "-p", "2"], b"a\nb\n"));
    assert_eq!(acks[0]["topic"], "orders");
    assert_eq!((&acks[0]["partition"], &acks[0]["base_offset"]), (&2.into(), &0.into()));
    assert_eq!(acks.iter().map(|ack| ack["count"].as_u64().unwrap()).sum::<u64>(), 2);
    assert_eq!(acks[0]["durability"], "fsync");
    server.ok(&["consume", "orders", "-g", "billing"], b"");
    for (args, code, lines) in [
        (&["topic", "create", "more"] as &[&str], 0, 1),
        (&["topic", "list"], 0, 2),
        (&["topic", "describe", "orders"], 0, 8),
        (&["topic", "alter", "more", "--partitions", "9"], 0, 1),
        (&["topic", "delete", "more", "--dry-run"], 8, 1),
        (&["topic", "delete", "more", "--yes"], 0, 1),
        (&["group", "list"], 0, 1),
        (&["group", "describe", "billing"], 0, 1),
        (&["group", "delete", "billing", "--dry-run"], 8, 1),
        (&["group", "delete", "billing", "--yes"], 0, 1),
        (&["group", "list"], 0, 0),
        (&["replay", "orders", "start..end", "--dry-run"], 8, 8),
        (&["replay", "orders", "end..start", "--dry-run"], 0, 8),
        (&["consume", "orders"], 0, 2),
        (&["ping"], 0, 1),
    ] {
        let ran = server.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.said);
        assert_eq!(json_lines(&ran.printed).len(), lines, "{args:?}");
    }
}

#[test]
fn no_colour_and_no_bar_reach_a_pipe() {
    let server = Server::start();
    server.ok(&["produce", "orders"], b"\x1b[31mred\n");
    for format in ["table", "csv", "json"] {
        let ran = server.run(&["consume", "orders", "-f", format]);
        assert_eq!(ran.said, "", "{format}");
        let escaped = format == "csv" || !ran.printed.contains(&0x1b);
        assert!(escaped, "{format}: {:?}", String::from_utf8_lossy(&ran.printed));
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure_and_nothing_more_is_committed() {
    let server = Server::start();
    server.ok(&["produce", "many", "-p", "0"], &numbers(0..100_000));
    let mut child = server.command(&["consume", "many", "-g", "readers"]).spawn().unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
    assert_eq!(server.run(&["group", "describe", "readers"]).code, 3, "nothing was committed");
}

#[test]
fn a_publisher_whose_acks_nobody_reads_publishes_everything() {
    let server = Server::start();
    let mut child = server
        .command(&["produce", "many", "-p", "0", "--batch-bytes", "16KiB"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&numbers(0..100_000)).unwrap();
    let mut first = [0; 1];
    let mut acks = child.stdout.take().unwrap();
    acks.read_exact(&mut first).unwrap();
    drop(acks);
    stdin.write_all(&numbers(100_000..200_000)).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
    assert_eq!(server.ok(&["consume", "many", "-f", "raw"], b""), numbers(0..200_000));
}

#[test]
fn ctrl_c_ends_a_follower_cleanly_with_its_commit() {
    let server = Server::start();
    server.ok(&["produce", "orders", "-p", "0"], &numbers(0..3));
    let mut child =
        server.command(&["consume", "orders", "-g", "billing", "--follow", "-f", "%v\\n"]).spawn().unwrap();
    let mut printed = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut printed).unwrap();
    assert_eq!(&printed, b"0\n1\n2\n");
    interrupt(&child);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let group = json_lines(&server.ok(&["group", "describe", "billing"], b""));
    assert_eq!(group[0]["next_offset"], 3);
}

#[test]
fn ctrl_c_ends_a_publisher_that_waits_for_input() {
    let server = Server::start();
    let mut child = server.command(&["produce", "orders", "-p", "0"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"typed\n").unwrap();
    // What was typed is published while the input stays open.
    let mut ack = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut ack).unwrap();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8(output.stderr).unwrap().contains("1 record was acked"));
    assert_eq!(server.ok(&["consume", "orders", "-f", "raw"], b""), b"typed\n");
}

#[test]
fn a_follower_sees_what_comes_later_and_survives_nothing_but_ctrl_c() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "2"], b"");
    let mut child = server.command(&["consume", "orders", "--follow", "-f", "%p:%v\\n"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    server.ok(&["produce", "orders", "-p", "1"], b"late\n");
    let mut printed = [0; 7];
    child.stdout.as_mut().unwrap().read_exact(&mut printed).unwrap();
    assert_eq!(&printed, b"1:late\n");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
