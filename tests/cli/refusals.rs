//! Every way to fail has its code, says what happened, with the value, and what to type next.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::harness::{Server, annals, feed, json_lines};

#[track_caller]
fn fails(server: &Server, args: &[&str], input: &[u8], code: i32, says: &[&str]) {
    let ran = server.feed(args, input);
    assert_eq!(ran.code, code, "{args:?}: {}", ran.said);
    for word in says {
        assert!(ran.said.contains(word), "{args:?} does not say {word:?}: {}", ran.said);
    }
}

#[test]
fn usage_is_two() {
    let server = Server::start();
    fails(&server, &["topic"], b"", 2, &["Usage"]);
    fails(&server, &["consume"], b"", 2, &["TOPIC"]);
    fails(&server, &["consume", "t", "-o", "latest"], b"", 2, &["latest", "@2026-11-01T00:00Z"]);
    fails(&server, &["consume", "t", "-f", "yaml"], b"", 2, &["yaml", "json"]);
    fails(&server, &["produce", "t", "-k", "a", "--json"], b"", 2, &["cannot be used with"]);
    fails(&server, &["produce", "t", "-H", "nope"], b"", 2, &["NAME=VALUE"]);
    fails(&server, &["produce", "t", "-f", "%v"], b"", 2, &["template"]);
    fails(&server, &["topic", "list", "-f", "%t"], b"", 2, &["template"]);
    fails(&server, &["topic", "create", "a b"], b"", 2, &["a b"]);
    fails(&server, &["topic", "create", "t", "--partitions", "0"], b"", 2, &["0"]);
    fails(&server, &["topic", "create", "t", "--segment-bytes", "1"], b"", 2, &["segment_bytes"]);
    fails(&server, &["topic", "alter", "t"], b"", 2, &["--partitions"]);
    server.ok(&["topic", "create", "t"], b"");
    fails(&server, &["replay", "t", "--resume"], b"", 2, &["--resume=FILE"]);
    fails(&server, &["replay", "t", "--into", "t"], b"", 2, &["itself"]);
    fails(&server, &["replay", "t", "--into", "u", "--resume=file"], b"", 2, &["--resume"]);
    fails(&server, &["replay", "t", "--speed", "fast"], b"", 2, &["10x"]);
    fails(&server, &["replay", "t", "5"], b"", 2, &["FROM..TO"]);
    fails(&server, &["consume", "t", "-o", "+5"], b"", 2, &["-g"]);
    fails(&server, &["topic", "delete", "t"], b"", 2, &["--yes", "--dry-run"]);
    assert_eq!(annals(&["frobnicate"]).status().unwrap().code(), Some(2));
    assert_eq!(annals(&["ping", "--server", "not a server"]).status().unwrap().code(), Some(2));
}

#[test]
fn not_found_is_three_and_names_a_neighbour() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"], b"");
    fails(&server, &["consume", "ordrs"], b"", 3, &["ordrs", "orders", "annals topic list"]);
    fails(&server, &["topic", "describe", "ordrs"], b"", 3, &["orders"]);
    fails(&server, &["topic", "delete", "ordrs", "--yes"], b"", 3, &["ordrs"]);
    fails(&server, &["group", "describe", "none"], b"", 3, &["none"]);
    fails(&server, &["group", "delete", "none", "--yes"], b"", 3, &["none"]);
    fails(&server, &["consume", "orders", "-p", "99"], b"", 3, &["99"]);
    fails(&server, &["produce", "orders", "-p", "99"], b"x\n", 1, &["99"]);
    fails(&server, &["produce", "orders", "/no/such/file"], b"", 3, &["/no/such/file"]);
}

#[test]
fn nobody_there_is_five_and_says_how_to_start_one() {
    for args in [
        &["ping"] as &[&str],
        &["ping", "--wait", "50ms"],
        &["consume", "t"],
        &["produce", "t"],
        &["topic", "list"],
        &["group", "list"],
        &["replay", "t", "start..end", "--dry-run"],
    ] {
        let mut command = annals(args);
        command.env("ANNALS_SERVER", "127.0.0.1:1");
        let ran = feed(command, b"x\n");
        assert_eq!(ran.code, 5, "{args:?}: {}", ran.said);
        assert!(
            ran.said.contains("127.0.0.1:1") && ran.said.contains("annals serve"),
            "{args:?}: {}",
            ran.said
        );
        assert!(ran.printed.is_empty());
    }
}

#[test]
fn other_settings_are_a_conflict() {
    let server = Server::start();
    server.ok(&["topic", "create", "t", "--partitions", "2"], b"");
    server.ok(&["topic", "create", "t", "--partitions", "2"], b"");
    fails(&server, &["topic", "create", "t", "--partitions", "3"], b"", 6, &["\"t\""]);
    let altered = server.run(&["topic", "alter", "t", "--partitions", "4"]);
    assert_eq!(altered.code, 0);
    assert!(altered.said.contains("keys move"), "{}", altered.said);
    fails(&server, &["topic", "alter", "t", "--partitions", "1"], b"", 2, &["partitions"]);
}

#[test]
fn a_bad_line_stops_with_its_number_and_what_was_acked() {
    let server = Server::start();
    let lines = b"{\"key\":\"a\"}\n{\"key\":\"b\"}\nnot json\n{\"key\":\"c\"}\n";
    fails(
        &server,
        &["produce", "t", "--key-field", "key"],
        lines,
        1,
        &["stdin line 3", "2 records before it are stored"],
    );
    assert_eq!(json_lines(&server.ok(&["consume", "t"], b"")).len(), 2);
    fails(
        &server,
        &["produce", "u", "--key-field", "key"],
        b"{\"a\":1}\n",
        1,
        &["line 1", "\"key\"", "0 records"],
    );
    fails(
        &server,
        &["produce", "u", "--key-sep", ":"],
        b"a:1\nb\n",
        1,
        &["line 2", "\":\"", "1 record before it is stored"],
    );
    fails(&server, &["produce", "u", "--json"], b"{\"id\":1}\n", 1, &["line 1", "no value"]);
    let long = [vec![b'x'; 3 << 20], b"\n".to_vec()].concat();
    fails(&server, &["produce", "u"], &long, 1, &["line 1", "1048576"]);
    let close = [vec![b'x'; (1 << 20) - 2], b"\n".to_vec()].concat();
    fails(&server, &["produce", "u"], &close, 1, &["line 1", "refused"]);
}

#[test]
fn damage_is_seven_and_what_cannot_be_checked_is_one() {
    let mut server = Server::start();
    let lines: Vec<u8> = (0..20_000).flat_map(|id| format!("{{\"id\":{id}}}\n").into_bytes()).collect();
    server.ok(&["topic", "create", "t", "--partitions", "1", "--segment-bytes", "1MiB"], b"");
    for _ in 0..5 {
        server.ok(&["produce", "t", "-p", "0"], &lines);
    }
    server.kill();
    let data = server.data();
    let verify = |directory: &str| feed(annals(&["log", "verify", directory]), b"");
    let intact = verify(data.to_str().unwrap());
    assert_eq!(intact.code, 0, "{}", intact.said);
    assert_eq!(json_lines(&intact.printed).last().unwrap()["verdict"], "intact");

    let files = json_lines(&feed(annals(&["log", "dump", data.to_str().unwrap()]), b"").printed);
    let mut segments: Vec<String> = files
        .iter()
        .map(|line| line["file"].as_str().unwrap().to_owned())
        .filter(|file| file.ends_with(".log"))
        .collect();
    segments.sort();
    assert!(segments.len() > 1, "{segments:?}");
    let pieces =
        json_lines(&feed(annals(&["log", "dump", data.to_str().unwrap(), &segments[0]]), b"").printed);
    assert!(pieces.iter().any(|piece| piece["kind"] == "batch"));

    // What the journal still holds a start would write again, and that is no damage: a start puts it behind a snapshot.
    let mut again = Command::new(crate::harness::ANNALS)
        .args(["serve", "--grpc", "127.0.0.1:0", "-f", "json", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(again.stdout.take().unwrap()), &mut line)
        .unwrap();
    again.kill().unwrap();
    again.wait().unwrap();

    // A sealed segment, one bit.
    let path = data.join(&segments[0]);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let damaged = verify(data.to_str().unwrap());
    assert_eq!(damaged.code, 7, "{}", damaged.said);
    let lines = json_lines(&damaged.printed);
    assert_eq!(lines[0]["file"], segments[0].as_str());
    assert!(lines[0]["first_offset"].is_i64() && lines[0]["topic_id"].is_string(), "{}", lines[0]);
    assert_eq!(lines.last().unwrap()["verdict"], "damaged");

    assert_eq!(verify("/no/such/directory").code, 1);
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("holiday.jpg"), b"x").unwrap();
    assert_eq!(verify(foreign.path().to_str().unwrap()).code, 1);
}

#[test]
fn ping_waits_for_a_server_that_starts_late() {
    let first = Server::start();
    let address = first.address().to_owned();
    drop(first);
    let mut ping = annals(&["ping", "--wait", "20s", "--server", &address]).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(ping.try_wait().unwrap().is_none(), "it did not wait");
    let directory = tempfile::tempdir().unwrap();
    let mut server = Command::new(crate::harness::ANNALS)
        .args(["serve", "--grpc", &address, "--data"])
        .arg(directory.path().join("data"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let code = ping.wait().unwrap().code();
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(code, Some(0));
}
