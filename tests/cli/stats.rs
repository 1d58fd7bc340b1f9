//! The three rates as people and scripts see them.

use std::{
    io::{BufRead as _, BufReader},
    time::Duration,
};

use serde_json::Value;

use crate::harness::{Server, interrupt, json_lines, numbers};

fn of<'a>(lines: &'a [Value], group: &Value) -> &'a Value {
    lines.iter().find(|line| line["group"] == *group).unwrap_or_else(|| panic!("{lines:?}"))
}

#[test]
fn stats_tell_what_was_published_and_processed_and_what_is_left() {
    let server = Server::start();
    server.ok(&["produce", "n", "-p", "0"], &numbers(0..5000));
    server.ok(&["consume", "n", "-g", "g", "-n", "3000", "-f", "raw"], b"");
    // The second in which they came is over.
    std::thread::sleep(Duration::from_millis(1100));
    let lines = json_lines(&server.ok(&["stats"], b""));
    let (topic, group) = (of(&lines, &Value::Null), of(&lines, &"g".into()));
    let rate = |line: &Value, name: &str| line[name].as_f64().unwrap();
    assert!(rate(topic, "p_per_s") > 0.0 && rate(topic, "p_per_s") <= 5000.0, "{topic}");
    assert!(rate(group, "r_per_s") > 0.0 && rate(group, "r_per_s") <= 3000.0, "{group}");
    assert!(rate(topic, "p_per_s") > rate(group, "r_per_s"), "{lines:?}");
    assert_eq!(group["lag"], 2000);
    assert!(group["lag_age_ms"].as_i64().unwrap() >= 1100 && group["eta_ms"].is_null(), "{group}");
    assert!(group["l50_ms"].as_f64().unwrap() <= group["l99_ms"].as_f64().unwrap(), "{group}");
    let parts = json_lines(&server.ok(&["stats", "--topic", "n", "--partitions", "--over", "15m"], b""));
    assert!(parts.iter().any(|line| line["partition"] == 0 && line["group"] == "g"), "{parts:?}");
    for (args, what) in
        [(["stats", "--topic", "m"], "topic \"m\" not found"), (["stats", "--group", "h"], "group \"h\"")]
    {
        let ran = server.run(&args);
        assert!(ran.code == 3 && ran.said.contains(what), "{args:?}: {ran:?}");
    }
}

#[test]
fn a_watched_group_is_told_of_again_and_again_until_ctrl_c() {
    let server = Server::start();
    server.ok(&["produce", "n", "-p", "0"], &numbers(0..10));
    server.ok(&["consume", "n", "-g", "g", "-n", "4"], b"");
    let mut child = server.command(&["group", "watch", "g", "--every", "100ms"]).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = 0;
    for line in lines {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if line["group"] == "g" {
            assert_eq!(line["lag"], 6);
            seen += 1;
        }
        if seen == 3 {
            interrupt(&child);
            break;
        }
    }
    assert_eq!((seen, child.wait().unwrap().code()), (3, Some(130)));
    let ran = server.run(&["group", "watch", "h"]);
    assert_eq!(ran.code, 3, "{ran:?}");
}
