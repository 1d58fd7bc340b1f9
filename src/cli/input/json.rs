//! Whole records from JSON lines: what `annals consume -f json` and `kcat -J` print.
//!
//! | member | is |
//! |---|---|
//! | `key`, `key_base64` | the key; `null` or absent = none |
//! | `value`, `value_base64`, kcat's `payload` | the value; one of them must be there, `null` = tombstone |
//! | `headers` | `[[name,value],...]`, or kcat's `[name,value,...]`; a value is text, `null` or `{"base64":"..."}` |
//! | `timestamp_ms`, kcat's `ts` | the event's time |
//!
//! Other members, such as topic and offset, tell where the record came from and are not taken over.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::key::without_line;

/// Names, and values that may be absent.
type HeaderPairs = Vec<(String, Option<Vec<u8>>)>;

/// A record read from a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadRecord {
    /// Key.
    pub(crate) key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub(crate) value: Option<Vec<u8>>,
    /// Headers in order.
    pub(crate) headers: HeaderPairs,
    /// Milliseconds since 1970.
    pub(crate) timestamp_ms: Option<i64>,
}

/// Tells `null` from absent.
#[allow(clippy::option_option, reason = "absent, null and text are three things here")]
fn present<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(reader).map(Some)
}

#[derive(Deserialize)]
#[allow(clippy::option_option, reason = "absent, null and text are three things here")]
struct Line {
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Option<String>>,
    value_base64: Option<String>,
    #[serde(default, deserialize_with = "present")]
    payload: Option<Option<String>>,
    headers: Option<HeaderList>,
    timestamp_ms: Option<i64>,
    ts: Option<i64>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "headers are [[name, value], ...] or [name, value, ...], a value being text, null or {\"base64\": text}"
)]
enum HeaderList {
    Pairs(Vec<(String, HeaderValue)>),
    Flat(Vec<Option<String>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum HeaderValue {
    Text(Option<String>),
    Binary { base64: String },
}

/// Reads one line; the error says what is wrong with it.
pub(crate) fn read(line: &[u8]) -> Result<ReadRecord, String> {
    let line: Line = serde_json::from_slice(line)
        .map_err(|error| format!("is no record in JSON: {}", without_line(&error)))?;
    let key = one_of("key", line.key.map(String::into_bytes), line.key_base64)?;
    let text = match (line.value, line.payload) {
        (Some(_), Some(_)) => return Err("has both value and payload".to_owned()),
        (value, payload) => value.or(payload),
    };
    if text.is_none() && line.value_base64.is_none() {
        return Err("has no value: value, value_base64 or payload (null = tombstone)".to_owned());
    }
    let value = one_of("value", text.flatten().map(String::into_bytes), line.value_base64)?;
    let timestamp_ms = line.timestamp_ms.or(line.ts.filter(|ts| *ts > 0));
    if timestamp_ms.is_some_and(|ms| ms < 0) {
        return Err("has a timestamp_ms before 1970".to_owned());
    }
    let headers = line.headers.map_or(Ok(Vec::new()), read_headers)?;
    Ok(ReadRecord { key, value, headers, timestamp_ms })
}

fn one_of(name: &str, text: Option<Vec<u8>>, base64: Option<String>) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("has both {name} and {name}_base64")),
        (None, Some(base64)) => decode(&format!("{name}_base64"), &base64).map(Some),
        (text, None) => Ok(text),
    }
}

fn decode(what: &str, base64: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(base64).map_err(|error| format!("has a {what} that is no base64: {error}"))
}

fn read_headers(list: HeaderList) -> Result<HeaderPairs, String> {
    match list {
        HeaderList::Pairs(pairs) => pairs
            .into_iter()
            .map(|(name, value)| match value {
                HeaderValue::Text(text) => Ok((name, text.map(String::into_bytes))),
                HeaderValue::Binary { base64 } => Ok((name, Some(decode("header", &base64)?))),
            })
            .collect(),
        HeaderList::Flat(flat) => {
            if flat.len() % 2 != 0 {
                return Err("has a header without a value".to_owned());
            }
            let mut flat = flat.into_iter();
            let mut headers = Vec::new();
            while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                let name = name.ok_or("has a header without a name")?;
                headers.push((name, value.map(String::into_bytes)));
            }
            Ok(headers)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::format::tests::{print, view},
        *,
    };

    #[test]
    fn what_consume_prints_is_read_back_to_the_byte() {
        let values: [Option<&[u8]>; 5] =
            [None, Some(b""), Some(b"{\"a\":\"\\n\"}\r"), Some(b"\xff\x00"), Some("ä\u{0}".as_bytes())];
        let headers: &[(&str, Option<&[u8]>)] =
            &[("a", Some(b"1")), ("a", None), ("b", Some(b"\xfe")), ("", Some(b""))];
        for key in values {
            for value in values {
                let line = print("json", &view(key, value, headers));
                let record = read(&line).unwrap();
                assert_eq!((record.key.as_deref(), record.value.as_deref()), (key, value));
                assert_eq!(record.timestamp_ms, Some(1_793_491_200_123));
                let back: Vec<_> = record.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
                assert_eq!(back, headers);
            }
        }
    }

    #[test]
    fn kcat_lines_are_read() {
        let line = br#"{"topic":"t","partition":0,"offset":5,"tstype":"create","ts":1700000000000,"broker":1,"headers":["h1","v1","h2",null],"key":"k","payload":"v"}"#;
        let record = read(line).unwrap();
        assert_eq!(record.key.as_deref(), Some(b"k".as_slice()));
        assert_eq!(record.value.as_deref(), Some(b"v".as_slice()));
        assert_eq!(record.headers, [("h1".to_owned(), Some(b"v1".to_vec())), ("h2".to_owned(), None)]);
        assert_eq!(record.timestamp_ms, Some(1_700_000_000_000));
        let tombstone = read(br#"{"ts":-1,"key":null,"payload":null}"#).unwrap();
        assert_eq!(tombstone, ReadRecord::default());
        assert_eq!(read(br#"{"headers":[],"payload":""}"#).unwrap().value, Some(Vec::new()));
    }

    #[test]
    fn what_is_no_record_is_refused_with_the_reason() {
        for (line, why) in [
            (r#"{"id":1}"#, "no value"),
            ("", "no record in JSON"),
            ("[1]", "no record in JSON"),
            (r#"{"value":1}"#, "no record in JSON"),
            (r#"{"value":"a","payload":"b"}"#, "both value and payload"),
            (r#"{"value":"a","value_base64":"YQ=="}"#, "both value and value_base64"),
            (r#"{"value":"a","key_base64":"!"}"#, "key_base64"),
            (r#"{"value":"a","timestamp_ms":-5}"#, "before 1970"),
            (r#"{"value":"a","headers":["a"]}"#, "header without a value"),
            (r#"{"value":"a","headers":[null,"a"]}"#, "header without a name"),
            (r#"{"value":"a","headers":[["a",{"base64":"%"}]]}"#, "header that is no base64"),
            (r#"{"value":"a","headers":{"a":"b"}}"#, "headers are [[name, value], ...]"),
            (r#"{"value":"a","headers":[["a"]]}"#, "headers are [[name, value], ...]"),
        ] {
            let error = read(line.as_bytes()).expect_err(line);
            assert!(error.contains(why) && !error.contains("at line"), "{line}: {error}");
        }
    }
}
