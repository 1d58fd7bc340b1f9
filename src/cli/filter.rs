//! Which records a command asks for: one set of options for every command that reads. The server leaves out the rest.

use std::str::FromStr;

use annals_client::{Filter, v1};
use clap::Args;

/// Which records
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Filters {
    /// Only records of this key
    #[arg(long, value_name = "KEY", conflicts_with = "key_prefix")]
    key: Option<String>,
    /// Only records whose key starts so
    #[arg(long, value_name = "PREFIX")]
    key_prefix: Option<String>,
    /// Only records with this header; several: with all of them
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<HeaderIs>,
    /// Only events of this type (header ce_type); several: of any of them
    #[arg(long = "type", value_name = "TYPE")]
    event_types: Vec<String>,
}

/// A header and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HeaderIs {
    name: String,
    value: String,
}

impl FromStr for HeaderIs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("\"{text}\" is no NAME=VALUE")),
        }
    }
}

impl Filters {
    /// What to ask the server for; `None` = everything.
    pub(crate) fn filter(&self) -> Option<Filter> {
        let header = |header: &HeaderIs| v1::Header {
            key: header.name.clone(),
            value: Some(header.value.clone().into()),
        };
        let asked = v1::Filter {
            key: self.key.clone().map(Into::into),
            key_prefix: self.key_prefix.clone().map(Into::into),
            headers: self.headers.iter().map(header).collect(),
            event_types: self.event_types.clone(),
        };
        (asked != v1::Filter::default()).then(|| asked.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_a_value() {
        let header = |name: &str, value: &str| HeaderIs { name: name.into(), value: value.into() };
        assert_eq!("a=b".parse(), Ok(header("a", "b")));
        assert_eq!("a=b=c".parse(), Ok(header("a", "b=c")));
        assert_eq!("a=".parse(), Ok(header("a", "")));
        for text in ["", "a", "=b"] {
            assert!(text.parse::<HeaderIs>().is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_asked_is_no_filter() {
        assert_eq!(Filters::default().filter(), None);
        let keyed = Filters { key: Some(String::new()), ..Filters::default() };
        assert_eq!(keyed.filter(), Some(Filter::key("")));
    }
}
