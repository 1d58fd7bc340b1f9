//! What a reader does not want to be sent.
//!
//! A filter is judged where the records lie. It leaves records out and changes none; offsets, gaps and damage are as without
//! it. Two filters that leave out the same are equal: headers and types are kept sorted, each once.

use annals_wire::{
    limits::{MAX_FILTER_BYTES, MAX_FILTER_CONDITIONS},
    slice::RecordRef,
    v1,
};
use bytes::Bytes;
use prost::Message as _;

use super::Error;

/// Header that holds an event's type.
const EVENT_TYPE: &str = "ce_type";

/// Conditions that a record must meet, all of them; at least one, and of bounded size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    key: Option<Bytes>,
    key_prefix: Option<Bytes>,
    /// Name and value, in order.
    headers: Vec<(String, Option<Bytes>)>,
    /// In order.
    event_types: Vec<String>,
}

impl Filter {
    /// The filter a message of the API describes.
    ///
    /// # Errors
    /// It has no condition, or one that no record can meet, or it is too large. The error names its field within `filter`.
    pub fn new(asked: v1::Filter) -> Result<Self, Error> {
        let wrong = |field: &str, why: String| Err(Error::argument(format!("filter.{field}"), why));
        let conditions = asked.headers.len() + asked.event_types.len();
        if conditions > MAX_FILTER_CONDITIONS {
            return wrong(
                "headers",
                format!("{conditions} headers and types; at most {MAX_FILTER_CONDITIONS} are taken"),
            );
        }
        let bytes = asked.encoded_len();
        if bytes > MAX_FILTER_BYTES {
            return Err(Error::argument(
                "filter",
                format!("{bytes} bytes; at most {MAX_FILTER_BYTES} are taken"),
            ));
        }
        if asked.key.is_none() && asked.key_prefix.is_none() && conditions == 0 {
            return Err(Error::argument("filter", "it has no condition: leave it out to be sent everything"));
        }
        match &asked.key_prefix {
            Some(_) if asked.key.is_some() => return wrong("key_prefix", "not beside `key`".into()),
            Some(prefix) if prefix.is_empty() => return wrong("key_prefix", "it is empty".into()),
            _ => {}
        }
        if asked.headers.iter().any(|header| header.key.is_empty()) {
            return wrong("headers", "a header without a name".into());
        }
        if asked.event_types.iter().any(String::is_empty) {
            return wrong("event_types", "an empty type".into());
        }
        let mut headers: Vec<_> =
            asked.headers.into_iter().map(|header| (header.key, header.value)).collect();
        headers.sort();
        headers.dedup();
        let mut event_types = asked.event_types;
        event_types.sort();
        event_types.dedup();
        Ok(Self { key: asked.key, key_prefix: asked.key_prefix, headers, event_types })
    }

    /// The message of the API that describes it.
    pub fn message(&self) -> v1::Filter {
        let header =
            |(key, value): &(String, Option<Bytes>)| v1::Header { key: key.clone(), value: value.clone() };
        v1::Filter {
            key: self.key.clone(),
            key_prefix: self.key_prefix.clone(),
            headers: self.headers.iter().map(header).collect(),
            event_types: self.event_types.clone(),
        }
    }

    /// The one key it lets through, if it names one.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// Whether a record meets all conditions.
    pub(crate) fn admits(&self, record: &RecordRef<'_>) -> bool {
        self.key.as_deref().is_none_or(|key| record.key == Some(key))
            && self
                .key_prefix
                .as_deref()
                .is_none_or(|prefix| record.key.is_some_and(|key| key.starts_with(prefix)))
            && self
                .headers
                .iter()
                .all(|(name, value)| record.headers().any(|found| found == (name.as_str(), value.as_deref())))
            && (self.event_types.is_empty() || self.has_type(record))
    }

    fn has_type(&self, record: &RecordRef<'_>) -> bool {
        record.headers().any(|(name, value)| {
            name == EVENT_TYPE
                && value.is_some_and(|value| self.event_types.iter().any(|asked| asked.as_bytes() == value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: Option<&'static str>) -> v1::Header {
        v1::Header { key: name.to_owned(), value: value.map(Bytes::from) }
    }

    #[test]
    fn what_cannot_be_a_filter_is_refused_by_field() {
        let with = |change: fn(&mut v1::Filter)| {
            let mut asked = v1::Filter::default();
            change(&mut asked);
            match Filter::new(asked) {
                Err(Error::InvalidArgument { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(with(|_| {}), "filter");
        assert_eq!(with(|asked| asked.key = Some(vec![0; MAX_FILTER_BYTES].into())), "filter");
        assert_eq!(with(|asked| asked.key_prefix = Some(Bytes::new())), "filter.key_prefix");
        assert_eq!(with(|asked| asked.headers = vec![header("", None)]), "filter.headers");
        assert_eq!(with(|asked| asked.headers = vec![header("a", None); 65]), "filter.headers");
        assert_eq!(with(|asked| asked.event_types = vec![String::new()]), "filter.event_types");
        let both = |asked: &mut v1::Filter| {
            asked.key = Some(Bytes::new());
            asked.key_prefix = Some("a".into());
        };
        assert_eq!(with(both), "filter.key_prefix");
        let largest = v1::Filter { key: Some(vec![0; MAX_FILTER_BYTES - 3].into()), ..Default::default() };
        assert_eq!(Filter::new(largest.clone()).unwrap().message(), largest);
    }

    #[test]
    fn filters_that_leave_out_the_same_are_equal() {
        let one = v1::Filter {
            headers: vec![header("b", Some("1")), header("a", None), header("b", Some("1"))],
            event_types: vec!["y".into(), "x".into(), "y".into()],
            ..Default::default()
        };
        let other = v1::Filter {
            headers: vec![header("a", None), header("b", Some("1"))],
            event_types: vec!["x".into(), "y".into()],
            ..Default::default()
        };
        let (one, other) = (Filter::new(one).unwrap(), Filter::new(other).unwrap());
        assert_eq!(one, other);
        assert_eq!(Filter::new(one.message()), Ok(one), "as it is kept, it is read");
    }
}
