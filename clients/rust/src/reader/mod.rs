//! Reading: once ([`Client::fetch`](crate::Client::fetch)) or on and on ([`Client::subscribe`](crate::Client::subscribe)).
//!
//! Both begin at offsets ([`Position`]), which [`Client::positions`](crate::Client::positions) finds for times, groups and
//! ends, and both hand out the server's bytes ([`Records`]).

mod fetch;
mod filter;
mod position;
mod records;
mod subscribe;

pub(crate) use fetch::codecs;
pub use fetch::{FetchOptions, Fetched, PartitionFailure};
pub use filter::Filter;
pub use position::{Position, Start};
pub use records::{Batch, RecordRef, Records};
pub use subscribe::{Event, OnState, Reader, ReaderOptions, ReaderState};
