//! What goes in comes out, to the byte.

use serde_json::Value;

use crate::harness::{Server, json_lines, numbers};

#[test]
fn lines_of_any_bytes_come_back() {
    let server = Server::start();
    let odd = b"a\r\n\n\x00\xff\xfe\n\xc3\xa4 \xf0\x9f\x98\x80\n{\"json\":\"\\n\"}\n  spaces  \n\t\nlast";
    server.ok(&["produce", "odd", "-p", "0"], odd);
    assert_eq!(server.ok(&["consume", "odd", "-f", "raw"], b""), [odd.as_slice(), b"\n"].concat());
    assert_eq!(json_lines(&server.ok(&["consume", "odd"], b"")).len(), 8);
}

#[test]
fn nothing_is_published_from_nothing() {
    let server = Server::start();
    assert_eq!(server.ok(&["produce", "none"], b""), b"");
    assert_eq!(server.run(&["consume", "none"]).code, 3);
}

#[test]
fn json_lines_go_round_with_key_headers_and_time() {
    let server = Server::start();
    let lines = [
        r#"{"key":"k","value":"v","headers":[["a","1"],["a",null],["b",{"base64":"/w=="}]],"timestamp_ms":1700000000000}"#,
        r#"{"key_base64":"/w==","value_base64":"AP8=","timestamp_ms":1700000000001}"#,
        r#"{"key":"gone","value":null,"timestamp_ms":1700000000002}"#,
        r#"{"topic":"t","partition":3,"offset":9,"tstype":"create","ts":1700000000003,"broker":1,"headers":["h","v"],"key":"kc","payload":"at"}"#,
    ];
    server.ok(&["produce", "first", "--json", "-p", "0"], lines.join("\n").as_bytes());
    let printed = server.ok(&["consume", "first"], b"");
    let first = json_lines(&printed);
    assert_eq!(first.len(), 4);
    assert_eq!(first[0]["headers"][2][1]["base64"], "/w==");
    assert_eq!(first[2]["value"], Value::Null);
    assert_eq!((&first[3]["value"], &first[3]["headers"][0][1]), (&"at".into(), &"v".into()));
    server.ok(&["produce", "second", "--json", "-p", "0"], &printed);
    let again = server.ok(&["consume", "second"], b"");
    let renamed = String::from_utf8(again).unwrap().replace("\"second\"", "\"first\"");
    assert_eq!(renamed.as_bytes(), printed);
}

#[test]
fn a_real_day_keeps_its_order_by_key() {
    let server = Server::start();
    let day = concat!(env!("CARGO_MANIFEST_DIR"), "/data/flights-2013-01-01.ndjson");
    let acks = json_lines(&server.ok(&["produce", "flights", day, "--key-field", "key"], b""));
    assert_eq!(acks.iter().map(|ack| ack["count"].as_u64().unwrap()).sum::<u64>(), 1195);
    let read = json_lines(&server.ok(&["consume", "flights"], b""));
    let by_key = |key: &str, lines: &[String]| -> Vec<String> {
        let wanted = format!("\"key\":\"{key}\"");
        lines.iter().filter(|line| line.contains(&wanted)).cloned().collect()
    };
    let text = std::fs::read_to_string(day).unwrap();
    let published: Vec<String> = text.lines().map(str::to_owned).collect();
    let values: Vec<String> = read.iter().map(|line| line["value"].as_str().unwrap().to_owned()).collect();
    assert_eq!(values.len(), published.len());
    for line in &read {
        let key = line["key"].as_str().unwrap();
        assert_eq!(by_key(key, &values), by_key(key, &published));
    }
}

#[test]
fn positions_choose_what_is_printed() {
    let server = Server::start();
    server.ok(&["produce", "n", "-p", "0"], &numbers(0..10));
    for (args, want) in [
        (&["-o", "start"] as &[&str], "0123456789"),
        (&["-o", "7"], "789"),
        (&["-o", "-2"], "89"),
        (&["-o", "end"], ""),
        (&["-o", "@-1h"], "0123456789"),
        (&["-o", "@2100-01-01T00:00Z"], ""),
        (&["-o", "3", "-n", "2"], "34"),
        (&["-n", "0"], ""),
    ] {
        let all: Vec<&str> = ["consume", "n", "-f", "%v"].into_iter().chain(args.iter().copied()).collect();
        assert_eq!(String::from_utf8(server.ok(&all, b"")).unwrap(), want, "{args:?}");
    }
}

#[test]
fn keys_headers_and_partitions_are_as_asked() {
    let server = Server::start();
    server.ok(&["produce", "t", "--key-sep", "::", "-H", "a=1", "-H", "b=x=y", "-p", "5"], b"k::v::w\n");
    server
        .ok(&["produce", "t", "-k", "given", "-p", "5", "--durability", "fsync", "--linger", "0ms"], b"2\n");
    let printed = server.ok(&["consume", "t", "-p", "5", "-f", "%p %k %v %h{a} %h{b}\\n"], b"");
    assert_eq!(String::from_utf8(printed).unwrap(), "5 k v::w 1 x=y\n5 given 2  \n");
}
