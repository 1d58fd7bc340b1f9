//! The key of a line: given, a field of its JSON, or what stands before a separator.
//!
//! A key decides about order, so nothing is guessed: a line whose key cannot be found stops the run.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Where keys come from.
#[derive(Clone, Debug)]
pub(crate) enum KeySource {
    /// There are none.
    None,
    /// The same for every record.
    Given(Vec<u8>),
    /// A member of the line's JSON object.
    Field(String),
    /// What stands before the first of these bytes; the value stands behind it.
    Separator(Vec<u8>),
}

/// A line taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Keyed<'a> {
    /// Key, if there is one.
    pub(crate) key: Option<Cow<'a, [u8]>>,
    /// Value.
    pub(crate) value: &'a [u8],
}

impl KeySource {
    /// Takes a line apart; the error says what is wrong with it.
    pub(crate) fn split<'a>(&'a self, line: &'a [u8]) -> Result<Keyed<'a>, String> {
        match self {
            Self::None => Ok(Keyed { key: None, value: line }),
            Self::Given(key) => Ok(Keyed { key: Some(Cow::Borrowed(key)), value: line }),
            Self::Field(name) => Ok(Keyed { key: Some(field(line, name)?), value: line }),
            Self::Separator(separator) => {
                let at = memchr::memmem::find(line, separator).ok_or_else(|| {
                    format!("has no \"{}\" between key and value", separator.escape_ascii())
                })?;
                let (key, rest) = line.split_at_checked(at).unwrap_or((line, &[]));
                let value = rest.get(separator.len()..).unwrap_or_default();
                Ok(Keyed { key: Some(Cow::Borrowed(key)), value })
            }
        }
    }
}

/// The member `name` of a JSON object as bytes: a string's text, a number or boolean as it is written. The whole line is
/// checked to be JSON. Where a name stands twice, the last counts, as everywhere in JSON.
fn field<'a>(line: &'a [u8], name: &str) -> Result<Cow<'a, [u8]>, String> {
    let mut reader = serde_json::Deserializer::from_slice(line);
    let found = Finder { name }
        .deserialize(&mut reader)
        .and_then(|found| reader.end().map(|()| found))
        .map_err(|error| format!("is not a JSON object: {}", without_line(&error)))?;
    let raw = found.ok_or_else(|| format!("has no member \"{name}\""))?.get();
    match raw.as_bytes().first() {
        Some(b'"') => {
            // Without a backslash the text is what stands between the quotes, borrowed.
            let inner = raw.as_bytes().get(1..raw.len() - 1).unwrap_or_default();
            if memchr::memchr(b'\\', inner).is_none() {
                return Ok(Cow::Borrowed(inner));
            }
            let text: String = serde_json::from_str(raw).map_err(|error| without_line(&error))?;
            Ok(Cow::Owned(text.into_bytes()))
        }
        Some(b'{' | b'[' | b'n') | None => {
            Err(format!("has no text, number or boolean as \"{name}\", but {raw:.40}"))
        }
        Some(_) => Ok(Cow::Borrowed(raw.as_bytes())),
    }
}

/// `serde_json` counts lines within what it was given, which is always one.
pub(super) fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => text,
    }
}

/// Visits an object and keeps one member.
struct Finder<'n> {
    name: &'n str,
}

impl<'de> DeserializeSeed<'de> for Finder<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(wanted) = members.next_key_seed(IsName { name: self.name })? {
            if wanted {
                found = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a member's name in place.
struct IsName<'n> {
    name: &'n str,
}

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(line: &str) -> Result<String, String> {
        field(line.as_bytes(), "k").map(|key| String::from_utf8(key.into_owned()).unwrap())
    }

    #[test]
    fn a_scalar_member_is_the_key() {
        for (line, want) in [
            (r#"{"k":"v"}"#, "v"),
            (r#" { "a" : {"k":"inner"} , "k" : "v" } "#, "v"),
            (r#"{"k":"a\"\u00e4\\"}"#, "a\"ä\\"),
            (r#"{"\u006b":"escaped name"}"#, "escaped name"),
            (r#"{"k":""}"#, ""),
            (r#"{"k":42}"#, "42"),
            (r#"{"k":-1.50e3}"#, "-1.50e3"),
            (r#"{"k":true}"#, "true"),
            (r#"{"k":1,"k":2}"#, "2"),
            ("{\"k\":\"v\"}\r", "v"),
        ] {
            assert_eq!(key(line).as_deref(), Ok(want), "{line}");
        }
    }

    #[test]
    fn what_is_no_json_object_or_has_no_key_is_refused() {
        for line in [
            "",
            "x",
            "{",
            "[]",
            "\"k\"",
            "42",
            "null",
            r#"{"k":"v"} x"#,
            r#"{"k":"v",}"#,
            r#"{"k":"v"#,
            r#"{"k":v}"#,
            r#"{"K":"v"}"#,
            r#"{"k":null}"#,
            r#"{"k":{}}"#,
            r#"{"k":[1]}"#,
            r#"{"a":{"k":1}}"#,
            r#"{"k":"\ud800"}"#,
            r#"{k:"v"}"#,
            r#"{"a":01,"k":"v"}"#,
            "{\"a\":\"\t\",\"k\":\"v\"}",
        ] {
            let error = key(line).expect_err(line);
            assert!(!error.contains("at line"), "{error}");
        }
        assert!(field(b"{\"k\":\"\xff\"}", "k").is_err());
    }

    #[test]
    fn it_agrees_with_a_whole_parse() {
        let day = include_str!("../../../data/flights-2013-01-01.ndjson");
        for line in day.lines() {
            let whole: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(key_of(line, "key"), whole["key"].as_str().unwrap());
            assert_eq!(key_of(line, "delay_min"), whole["delay_min"].to_string());
        }
    }

    fn key_of(line: &str, name: &str) -> String {
        match field(line.as_bytes(), name) {
            Ok(key) => String::from_utf8(key.into_owned()).unwrap(),
            Err(_) => "null".to_owned(),
        }
    }

    #[test]
    fn a_separator_parts_key_and_value_once() {
        let source = KeySource::Separator(b"::".to_vec());
        let keyed = source.split(b"a:b::c::d").unwrap();
        assert_eq!((keyed.key.as_deref(), keyed.value), (Some(b"a:b".as_slice()), b"c::d".as_slice()));
        assert_eq!(source.split(b"::").unwrap().key.as_deref(), Some(b"".as_slice()));
        assert!(source.split(b"abc").unwrap_err().contains("\"::\""));
    }

    #[test]
    fn other_sources_leave_the_line_alone() {
        let line = b"\x00\xff\r";
        assert_eq!(KeySource::None.split(line).unwrap(), Keyed { key: None, value: line });
        let given = KeySource::Given(b"k".to_vec());
        assert_eq!(given.split(line).unwrap(), Keyed { key: Some(Cow::Borrowed(b"k")), value: line });
    }
}
