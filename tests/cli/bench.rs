//! `annals bench`, shortly: what it prints and what it leaves behind. Figures are looked at for being there, never for their
//! size.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Server, annals, interrupt, json_lines};

const SHORT: [&str; 6] = ["--runs", "2", "--duration", "150ms", "--warmup", "50ms"];

fn bench(args: &[&str]) -> Value {
    let output = annals(&[&["bench"][..], args, &["-f", "json"]].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    let [report] = json_lines(&output.stdout).try_into().expect("one object");
    report
}

fn figure<'r>(report: &'r Value, name: &str) -> &'r Value {
    let figures = report["figures"].as_array().unwrap();
    figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"))
}

#[test]
fn a_bench_of_its_own_server_tells_costs_limits_and_every_run() {
    // Its volume ends it, however fast the machine is.
    let args =
        "produce --durability os --record-bytes 100 --volume 32MiB --runs 2 --duration 5m --warmup 50ms";
    let report = bench(&args.split(' ').collect::<Vec<_>>());
    assert_eq!((report["bench"].as_str(), report["runs"].as_u64()), (Some("produce"), Some(2)));
    let throughput = figure(&report, "throughput");
    assert_eq!(throughput["runs"].as_array().unwrap().len(), 2);
    assert!(throughput["min"].as_f64().unwrap() > 0.0);
    assert!(throughput["limit"]["fraction"]["median"].as_f64().unwrap() > 0.0);
    for name in ["server CPU", "client CPU", "server peak RSS", "client peak RSS, no files"] {
        assert!(figure(&report, name)["median"].as_f64().unwrap() >= 0.0, "{name}");
    }
}

#[test]
fn every_record_of_a_rate_is_acked_and_delivered_and_its_latency_kept() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let args = [&["e2e", "--rate", "200", "--consumers", "2", "--out", out.to_str().unwrap()][..], &SHORT];
    let report = bench(&args.concat());
    assert_eq!(figure(&report, "delivered p50")["limit"]["name"], "ack p50");
    let written: Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(written, report);
    for (file, count) in [("ack.hlog", 30), ("delivered.hlog", 60)] {
        let log = std::fs::read(out.join(file)).unwrap();
        let counts: Vec<u64> = hdrhistogram::serialization::interval_log::IntervalLogIterator::new(&log)
            .filter_map(|entry| match entry.unwrap() {
                hdrhistogram::serialization::interval_log::LogEntry::Interval(interval) => {
                    use base64::Engine as _;
                    let bytes =
                        base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram());
                    let mut decoder = hdrhistogram::serialization::Deserializer::new();
                    let histogram: hdrhistogram::Histogram<u64> =
                        decoder.deserialize(&mut bytes.unwrap().as_slice()).unwrap();
                    Some(histogram.len())
                }
                _ => None,
            })
            .collect();
        // 200 a second for 150 ms, in each of two runs; at the end of a span one more or less.
        assert!(counts.len() == 2 && counts.iter().all(|n| n.abs_diff(count) <= 2), "{file}: {counts:?}");
    }
}

#[test]
fn a_named_server_keeps_nothing_and_its_costs_are_not_guessed() {
    let server = Server::start();
    let args =
        [&["unary", "--in-flight", "4", "--partitions", "3", "--server", server.address()], &SHORT[..]];
    let report = bench(&args.concat());
    assert_eq!(report["server"], server.address());
    assert!(figure(&report, "calls")["median"].as_f64().unwrap() > 0.0);
    let names: Vec<_> = report["figures"].as_array().unwrap().iter().map(|f| f["name"].clone()).collect();
    assert!(!names.contains(&"server CPU".into()) && names.contains(&"client CPU".into()), "{names:?}");
    assert_eq!(server.ok(&["topic", "list", "-f", "json"], b""), b"");
}

#[test]
fn ctrl_c_ends_a_bench_and_takes_its_topic_along() {
    let server = Server::start();
    let args = ["bench", "mixed", "--history", "1MiB", "--duration", "1h", "--server", server.address()];
    let child = annals(&args).spawn().unwrap();
    // It is under way once its topic holds something.
    while !String::from_utf8(server.ok(&["topic", "list", "-f", "json"], b""))
        .unwrap()
        .contains("annals-bench-")
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(server.ok(&["topic", "list", "-f", "json"], b""), b"");
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    for (args, code, what) in [
        (&["produce", "--record-bytes", "4"] as &[&str], 2, "a record here has 8"),
        (&["e2e", "--rate", "0"], 2, "rate"),
        (&["unary", "--server", "127.0.0.1:1"], 5, "cannot reach"),
        (&["limits", "--dir", "/no/such/place"], 3, "--dir"),
    ] {
        let output = annals(&[&["bench"][..], args].concat()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(what), "{args:?}: {said}");
    }
}
