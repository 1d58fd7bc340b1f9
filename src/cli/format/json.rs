//! A record as one line of JSON, written by hand: a million of them a second is what a reader of history asks for.
//!
//! ```text
//! {"topic":"orders","partition":2,"offset":7,"timestamp_ms":1793491200123,"key":"k","value":"v","headers":[["n","v"]]}
//! ```
//!
//! 1. Valid UTF-8 is a string, whatever it holds; any other bytes go as `key_base64`, `value_base64`, and in a header as
//!    `{"base64":"..."}`; `null` is an absent key, value or header value. So nothing is lost, and reading a line back
//!    gives the same bytes.
//! 2. A line feed is never inside a line: it is escaped like every control character.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Headers, View};

/// What all records of one partition begin with, kept from record to record.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    topic: String,
    partition: u32,
    text: Vec<u8>,
}

impl Prefix {
    fn of(&mut self, topic: &str, partition: u32) -> &[u8] {
        if self.text.is_empty() || self.partition != partition || self.topic != topic {
            topic.clone_into(&mut self.topic);
            self.partition = partition;
            self.text.clear();
            self.text.extend_from_slice(b"{\"topic\":");
            push_string(&mut self.text, topic);
            self.text.extend_from_slice(b",\"partition\":");
            push_number(&mut self.text, i64::from(partition));
            self.text.extend_from_slice(b",\"offset\":");
        }
        &self.text
    }
}

/// Appends a record and a line feed.
pub(super) fn push_record<'a, H: Headers<'a>>(out: &mut Vec<u8>, prefix: &mut Prefix, record: &View<'a, H>) {
    out.extend_from_slice(prefix.of(record.topic, record.partition));
    push_number(out, record.offset);
    out.extend_from_slice(b",\"timestamp_ms\":");
    push_number(out, record.timestamp_ms);
    push_member(out, b",\"key\":", b",\"key_base64\":\"", record.key);
    push_member(out, b",\"value\":", b",\"value_base64\":\"", record.value);
    out.extend_from_slice(b",\"headers\":");
    push_headers(out, record.headers.clone());
    out.extend_from_slice(b"}\n");
}

fn push_member(out: &mut Vec<u8>, text: &[u8], binary: &[u8], bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        out.extend_from_slice(text);
        out.extend_from_slice(b"null");
        return;
    };
    if let Ok(string) = std::str::from_utf8(bytes) {
        out.extend_from_slice(text);
        push_string(out, string);
    } else {
        out.extend_from_slice(binary);
        push_base64(out, bytes);
        out.push(b'"');
    }
}

/// Appends `[[name,value],...]`.
pub(super) fn push_headers<'a>(out: &mut Vec<u8>, headers: impl Headers<'a>) {
    out.push(b'[');
    for (index, (name, value)) in headers.enumerate() {
        out.extend_from_slice(if index == 0 { b"[" } else { b",[" });
        push_string(out, name);
        out.push(b',');
        match value.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => out.extend_from_slice(b"null"),
            Some((_, Ok(text))) => push_string(out, text),
            Some((bytes, Err(_))) => {
                out.extend_from_slice(b"{\"base64\":\"");
                push_base64(out, bytes);
                out.extend_from_slice(b"\"}");
            }
        }
        out.push(b']');
    }
    out.push(b']');
}

fn push_number(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    let length = bytes.len().div_ceil(3) * 4;
    out.resize(start + length, 0);
    let written = out.get_mut(start..).and_then(|room| STANDARD.encode_slice(bytes, room).ok());
    debug_assert_eq!(
        written,
        Some(length),
        "base64 with padding is four characters for each three bytes begun"
    );
}

/// For each byte: what stands for it in a JSON string, and whether a backslash goes before it.
struct Escapes {
    backslash: [u8; 256],
    letter: [u8; 256],
    /// 1 where the byte has no short escape and becomes `\u00XX`.
    long: [u8; 256],
}

const ESCAPES: Escapes = escapes();

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "evaluated by the compiler")]
const fn escapes() -> Escapes {
    let mut table = Escapes { backslash: [0; 256], letter: [0; 256], long: [0; 256] };
    let mut byte = 0;
    while byte < 256 {
        table.letter[byte] = byte as u8;
        if byte < 0x20 {
            table.long[byte] = 1;
        }
        byte += 1;
    }
    let short =
        [(b'"', b'"'), (b'\\', b'\\'), (b'\n', b'n'), (b'\r', b'r'), (b'\t', b't'), (8, b'b'), (12, b'f')];
    let mut index = 0;
    while index < short.len() {
        let (byte, letter) = short[index];
        table.backslash[byte as usize] = 1;
        table.letter[byte as usize] = letter;
        table.long[byte as usize] = 0;
        index += 1;
    }
    table
}

/// Appends a JSON string with its quotes.
///
/// Events are mostly JSON themselves, so every fifth byte or so is a quote: copying run by run would pay for each. Two
/// stores a byte, the second over the first unless a backslash is due, need no branch.
#[allow(
    clippy::indexing_slicing,
    reason = "a byte indexes tables of 256; at most two bytes are written for each"
)]
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + text.len() * 2 + 1, 0);
    let room = &mut out[start..];
    let mut at = 0;
    let mut long = 0;
    for &byte in text.as_bytes() {
        let byte = usize::from(byte);
        room[at] = b'\\';
        at += usize::from(ESCAPES.backslash[byte]);
        room[at] = ESCAPES.letter[byte];
        at += 1;
        long |= ESCAPES.long[byte];
    }
    if long == 0 {
        room[at] = b'"';
        out.truncate(start + at + 1);
    } else {
        out.truncate(start);
        push_with_long_escapes(out, text);
        out.push(b'"');
    }
}

#[allow(clippy::indexing_slicing, reason = "a byte indexes tables of 256, half a byte one of 16")]
fn push_with_long_escapes(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for &byte in text.as_bytes() {
        let index = usize::from(byte);
        if ESCAPES.long[index] == 1 {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[index >> 4], HEX[index & 15]]);
        } else {
            if ESCAPES.backslash[index] == 1 {
                out.push(b'\\');
            }
            out.push(ESCAPES.letter[index]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{print, view},
        *,
    };

    fn line(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> String {
        String::from_utf8(print("json", &view(key, value, headers))).unwrap()
    }

    #[test]
    fn a_record_is_the_line_the_documents_show() {
        assert_eq!(
            line(
                Some(b"k"),
                Some(b"{\"a\":1}"),
                &[("n", Some(b"v")), ("empty", None), ("bin", Some(b"\xff"))]
            ),
            concat!(
                r#"{"topic":"orders","partition":2,"offset":7,"timestamp_ms":1793491200123,"key":"k","#,
                r#""value":"{\"a\":1}","headers":[["n","v"],["empty",null],["bin",{"base64":"/w=="}]]}"#,
                "\n"
            )
        );
    }

    #[test]
    fn absent_empty_and_binary_are_three_things() {
        assert!(line(None, None, &[]).ends_with("\"key\":null,\"value\":null,\"headers\":[]}\n"));
        assert!(line(Some(b""), Some(b""), &[]).ends_with("\"key\":\"\",\"value\":\"\",\"headers\":[]}\n"));
        let binary = line(Some(b"\x80"), Some(&[0xff, 0xfe]), &[]);
        assert!(
            binary.ends_with("\"key_base64\":\"gA==\",\"value_base64\":\"//4=\",\"headers\":[]}\n"),
            "{binary}"
        );
    }

    #[test]
    fn every_character_comes_back_through_another_reader() {
        let all: String = (0..0x2_100_u32).filter_map(char::from_u32).chain(['\u{2028}', '😀']).collect();
        for text in [all.as_str(), "", "\"", "\\", "plain", "\n\r\t\u{8}\u{c}", "a\u{0}b", "\u{7f}"] {
            let mut out = Vec::new();
            push_string(&mut out, text);
            assert!(!out.contains(&b'\n'));
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn the_prefix_follows_topic_and_partition() {
        let mut printer = super::super::Printer::new(super::super::Format::Json, false, 0);
        let mut out = Vec::new();
        for (topic, partition) in [("a", 0), ("a", 1), ("b", 1), ("a", 0)] {
            let mut record = view(None, None, &[]);
            (record.topic, record.partition) = (topic, partition);
            printer.record(&mut out, &record);
        }
        let seen: Vec<serde_json::Value> =
            out.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let seen: Vec<_> =
            seen.iter().map(|line| format!("{}{}", line["topic"], line["partition"])).collect();
        assert_eq!(seen, ["\"a\"0", "\"a\"1", "\"b\"1", "\"a\"0"]);
    }
}
