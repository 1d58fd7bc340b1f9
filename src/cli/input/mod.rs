//! What is published, as it comes from files and pipes.
//!
//! [`lines`] cuts a stream into lines on a thread of its own; [`key`] finds the key in a line; [`json`] reads whole
//! records from lines that `consume` or `kcat -J` have written. Values are bytes: only what must be JSON is looked at.

pub(crate) mod json;
pub(crate) mod key;
pub(crate) mod lines;
