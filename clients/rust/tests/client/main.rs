//! The client against a server that does what a test tells it.
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod fake;
mod producer;
mod reader;
