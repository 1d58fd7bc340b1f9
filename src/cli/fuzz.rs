//! What commands read from arguments and pipes, as functions over bytes; see [`crate::fuzz`].

#![allow(clippy::unwrap_used, reason = "a panic is its verdict")]

use std::{iter, sync::Arc};

use super::{
    format::{Format, Printer, View},
    input::{
        json,
        key::KeySource,
        lines::{Lines, Splitter},
    },
    position::{Position, Range},
    values,
};

/// A position, a range, a size.
pub(crate) fn position(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let position = text.parse::<Position>();
    match &position {
        Ok(position) => {
            assert_eq!(position.to_string().parse(), Ok(*position), "{text:?}");
            assert!(position.timestamp_ms(1_700_000_000_000).is_none_or(|ms| ms >= 0));
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
    let range = text.parse::<Range>();
    if let Ok(range) = &range {
        assert_eq!(format!("{}..{}", range.from, range.to).parse().as_ref(), Ok(range));
    }
    position.is_ok() || range.is_ok() || values::bytes(text).is_ok()
}

/// Lines, however they arrive.
pub(crate) fn lines(input: &[u8]) -> bool {
    const LONGEST: usize = 24;
    let source: Arc<str> = "pipe".into();
    let split = |read_bytes: usize| {
        let (mut lines, mut numbers) = (Vec::new(), Vec::new());
        let done = Splitter::new(&source, LONGEST, read_bytes).run(input, |chunk| {
            numbers.push((lines.len() as u64 + 1, chunk.first_line));
            lines.extend(chunk.lines().map(<[u8]>::to_vec));
            true
        });
        assert!(numbers.iter().all(|(counted, said)| counted == said), "{numbers:?}");
        done.is_ok().then_some(lines)
    };
    let expected: Vec<_> = Lines::of(input).map(<[u8]>::to_vec).collect();
    let longest = expected.iter().map(Vec::len).max().unwrap_or(0);
    for read_bytes in [3, 64, 4096] {
        match split(read_bytes) {
            Some(lines) => assert_eq!(lines, expected, "read by {read_bytes}"),
            None => assert!(longest > LONGEST, "read by {read_bytes}, longest {longest}"),
        }
    }
    longest <= LONGEST
}

/// A record as a line of JSON, and what is printed of it read again.
pub(crate) fn json_record(input: &[u8]) -> bool {
    let Ok(record) = json::read(input) else { return false };
    let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    let view = View {
        topic: "orders",
        partition: 2,
        offset: 7,
        timestamp_ms: record.timestamp_ms.unwrap_or(1),
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers,
    };
    let mut line = Vec::new();
    Printer::new(Format::Json, false, 0).record(&mut line, &view);
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "one line");
    let again = json::read(&line).expect("what is printed can be read");
    assert_eq!((&again.key, &again.value, &again.headers), (&record.key, &record.value, &record.headers));
    assert_eq!(again.timestamp_ms, Some(record.timestamp_ms.unwrap_or(1)));
    true
}

/// The key in a line: a member of its JSON, or what stands before a separator.
pub(crate) fn key_field(input: &[u8]) -> bool {
    let source = KeySource::Separator(b"::".to_vec());
    if let Ok(keyed) = source.split(input) {
        assert_eq!([&keyed.key.unwrap(), b"::".as_slice(), keyed.value].concat(), input);
    }
    let source = KeySource::Field("key".to_owned());
    let Ok(keyed) = source.split(input) else { return false };
    assert_eq!(keyed.value, input);
    // Other members are not decoded, and may hold halves of surrogates.
    let Ok(whole) = serde_json::from_slice::<serde_json::Value>(input) else { return true };
    let key = String::from_utf8(keyed.key.unwrap().into_owned()).expect("JSON is text");
    match whole.get("key").expect("it was found") {
        serde_json::Value::String(text) => assert_eq!(*text, key),
        // Numbers are taken as they are written.
        other => assert_eq!(serde_json::from_str::<serde_json::Value>(&key).unwrap(), *other),
    }
    true
}

/// A format up to the first line feed, and a record of the rest printed in it and in the ready-made ones.
pub(crate) fn output_format(input: &[u8]) -> bool {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (format, rest) = input.split_at_checked(end).unwrap();
    let rest = rest.get(1..).unwrap_or_default();
    let (key, value) = rest.split_at_checked(rest.len() / 3).unwrap();
    let view = View {
        topic: "orders",
        partition: 2,
        offset: i64::MAX,
        timestamp_ms: i64::MIN,
        key: Some(key),
        value: Some(value),
        headers: iter::once(("name", Some(key))),
    };
    let print = |format: Format| {
        let mut out = Vec::new();
        Printer::new(format, false, 60).record(&mut out, &view);
        out
    };
    let table = String::from_utf8(print(Format::Table)).expect("a terminal gets text");
    let (line, feed) = table.split_at(table.len() - 1);
    assert!(feed == "\n" && !line.contains(|letter: char| letter.is_control()), "{line:?}");
    let csv = print(Format::Csv);
    assert!(memchr::memchr_iter(b'"', &csv).count().is_multiple_of(2));
    let parsed = std::str::from_utf8(format).ok().and_then(|text| text.parse::<Format>().ok());
    parsed.map(print).is_some()
}
