//! How records are printed: `-f table|json|csv|raw|TEMPLATE`.
//!
//! | format | a record is |
//! |---|---|
//! | `table` | a line for people: `orders[2]@0  time  key  value`, control characters escaped, long values cut |
//! | `json` | a JSON object on a line; bytes that are no text go as base64; [`crate::cli::input`] reads it back |
//! | `csv` | RFC 4180, a title line first; bytes as they are |
//! | `raw` | the value's bytes and a line feed: the inverse of producing lines |
//! | `TEMPLATE` | anything with a `%` in it, see [`template`] |
//!
//! The default is `table` on a terminal and `json` in a pipe. Each writer appends to one large buffer, without
//! allocating per record, so that printing keeps up with reading.

mod csv;
mod json;
mod line;
mod template;

use std::{fmt, str::FromStr};

pub(crate) use csv::push_cell as push_csv_cell;
pub(crate) use json::push_string as push_json_string;
use template::Template;

/// A format as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// JSON lines.
    Json,
    /// Comma-separated values with a title line.
    Csv,
    /// Values alone.
    Raw,
    /// The user's own.
    Template(Template),
}

impl Format {
    /// What was asked for; else tables on a terminal and JSON lines in a pipe.
    pub(crate) fn choose(asked: Option<&Self>, terminal: bool) -> Self {
        asked.cloned().unwrap_or(if terminal { Self::Table } else { Self::Json })
    }
}

/// A format that is none.
#[derive(Debug)]
pub(crate) struct BadFormat(String);

impl fmt::Display for BadFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadFormat {}

impl FromStr for Format {
    type Err = BadFormat;

    fn from_str(text: &str) -> Result<Self, BadFormat> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "raw" => Ok(Self::Raw),
            _ if text.contains('%') => Template::parse(text).map(Self::Template).map_err(BadFormat),
            _ => Err(BadFormat(format!(
                "\"{text}\" is no format: table, json, csv, raw, or a template such as '%t[%p]@%o %k %v\\n'"
            ))),
        }
    }
}

/// A record on its way out.
#[derive(Clone, Debug)]
pub(crate) struct View<'a, H> {
    /// Its topic's name.
    pub(crate) topic: &'a str,
    /// Its partition.
    pub(crate) partition: u32,
    /// Its offset.
    pub(crate) offset: i64,
    /// Milliseconds since 1970: the producer's, else the server's at append.
    pub(crate) timestamp_ms: i64,
    /// Key.
    pub(crate) key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// Headers in order.
    pub(crate) headers: H,
}

/// Headers in order: names, and values that may be absent.
pub(crate) trait Headers<'a>: Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone {}

impl<'a, I: Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone> Headers<'a> for I {}

/// Prints records in one format into a buffer that the caller empties.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    style: line::Style,
    prefix: json::Prefix,
}

impl Printer {
    /// `colour` and `width` concern `table` alone.
    pub(crate) fn new(format: Format, colour: bool, width: usize) -> Self {
        Self { format, style: line::Style { colour, width }, prefix: json::Prefix::default() }
    }

    /// What comes before the first record.
    pub(crate) fn title(&self, out: &mut Vec<u8>) {
        if self.format == Format::Csv {
            out.extend_from_slice(csv::TITLE);
        }
    }

    /// Appends one record.
    pub(crate) fn record<'a, H: Headers<'a>>(&mut self, out: &mut Vec<u8>, record: &View<'a, H>) {
        match &self.format {
            Format::Json => json::push_record(out, &mut self.prefix, record),
            Format::Raw => {
                out.extend_from_slice(record.value.unwrap_or_default());
                out.push(b'\n');
            }
            Format::Csv => csv::push_record(out, record),
            Format::Table => line::push_record(out, self.style, record),
            Format::Template(template) => template.push_record(out, record),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) type List<'a> = std::iter::Copied<std::slice::Iter<'a, (&'a str, Option<&'a [u8]>)>>;

    /// A record of `orders[2]` at offset 7.
    pub(crate) fn view<'a>(
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: &'a [(&'a str, Option<&'a [u8]>)],
    ) -> View<'a, List<'a>> {
        View {
            topic: "orders",
            partition: 2,
            offset: 7,
            timestamp_ms: 1_793_491_200_123,
            key,
            value,
            headers: headers.iter().copied(),
        }
    }

    pub(crate) fn print(format: &str, record: &View<'_, List<'_>>) -> Vec<u8> {
        let format = format.parse().unwrap_or_else(|error| panic!("{format}: {error}"));
        let mut out = Vec::new();
        Printer::new(format, false, 60).record(&mut out, record);
        out
    }

    #[test]
    fn raw_is_the_value_and_a_line_feed() {
        assert_eq!(print("raw", &view(Some(b"k"), Some(b"a\r\x00b"), &[])), b"a\r\x00b\n");
        assert_eq!(print("raw", &view(None, Some(b""), &[])), b"\n");
    }

    #[test]
    fn unknown_formats_name_the_known_ones() {
        let error = "yaml".parse::<Format>().unwrap_err().to_string();
        assert!(error.contains("yaml") && error.contains("json"), "{error}");
    }

    #[test]
    fn a_pipe_gets_json_and_a_terminal_a_table() {
        assert_eq!(Format::choose(None, true), Format::Table);
        assert_eq!(Format::choose(None, false), Format::Json);
        assert_eq!(Format::choose(Some(&Format::Raw), true), Format::Raw);
    }
}
