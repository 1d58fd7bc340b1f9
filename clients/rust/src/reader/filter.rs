//! What the server leaves out of a read.

use annals_wire::v1;
use bytes::Bytes;

/// Conditions that a record must meet to be sent, all of them. One without any condition is refused.
///
/// ```
/// use annals_client::Filter;
/// let filter = Filter::key("F-GKXS").event_type("landed");
/// let paid = Filter::default().header("state", "paid");
/// # let _ = (filter, paid);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(v1::Filter);

impl Filter {
    /// Exactly this key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self(v1::Filter { key: Some(key.into()), ..v1::Filter::default() })
    }

    /// Keys that start so.
    pub fn key_prefix(prefix: impl Into<Bytes>) -> Self {
        Self(v1::Filter { key_prefix: Some(prefix.into()), ..v1::Filter::default() })
    }

    /// And a header of this name and exactly this value.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.0.headers.push(v1::Header { key: name.into(), value: Some(value.into()) });
        self
    }

    /// And this event type (header `ce_type`), or another one named so.
    #[must_use]
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.0.event_types.push(event_type.into());
        self
    }
}

impl From<v1::Filter> for Filter {
    fn from(filter: v1::Filter) -> Self {
        Self(filter)
    }
}

impl From<Filter> for v1::Filter {
    fn from(filter: Filter) -> Self {
        filter.0
    }
}
