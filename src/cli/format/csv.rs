//! Records as comma-separated values (RFC 4180): a title line, then a line each.
//!
//! Bytes stand as they are, quoted where the format asks for it. An absent key or value is an empty cell, an empty one
//! is `""`. Headers are the JSON of [`super::json`] in one cell.

use std::io::Write as _;

use super::{Headers, View, json};

pub(super) const TITLE: &[u8] = b"topic,partition,offset,timestamp_ms,key,value,headers\n";

/// Appends a record and a line feed.
pub(super) fn push_record<'a, H: Headers<'a>>(out: &mut Vec<u8>, record: &View<'a, H>) {
    push_cell(out, record.topic.as_bytes());
    // Writing to a Vec cannot fail.
    let _ = write!(out, ",{},{},{},", record.partition, record.offset, record.timestamp_ms);
    push_optional(out, record.key);
    out.push(b',');
    push_optional(out, record.value);
    out.push(b',');
    let mut headers = Vec::new();
    json::push_headers(&mut headers, record.headers.clone());
    push_cell(out, &headers);
    out.push(b'\n');
}

fn push_optional(out: &mut Vec<u8>, cell: Option<&[u8]>) {
    match cell {
        None => {}
        Some([]) => out.extend_from_slice(b"\"\""),
        Some(cell) => push_cell(out, cell),
    }
}

/// Appends a cell, quoted if it holds a comma, a quote or a line's end.
pub(crate) fn push_cell(out: &mut Vec<u8>, cell: &[u8]) {
    if !cell.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        out.extend_from_slice(cell);
        return;
    }
    out.push(b'"');
    for &byte in cell {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::tests::{print, view};

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(
            print("csv", &view(Some(b"k"), Some(b"a,\"b\"\n"), &[("n", Some(b"v"))])),
            b"orders,2,7,1793491200123,k,\"a,\"\"b\"\"\n\",\"[[\"\"n\"\",\"\"v\"\"]]\"\n"
        );
    }

    #[test]
    fn absent_and_empty_differ() {
        assert_eq!(print("csv", &view(None, Some(b""), &[])), b"orders,2,7,1793491200123,,\"\",[]\n");
    }
}
