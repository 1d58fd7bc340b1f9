//! The command line, run as people and scripts run it: the built binary against a server of its own.
#![allow(clippy::disallowed_methods, reason = "tests of a process wait for it by the clock on the wall")]
#![allow(clippy::pedantic, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod bench;
mod crash_test;
mod documents;
mod groups;
mod harness;
mod pipes;
mod refusals;
mod replay;
mod round_trips;
mod sockets;
mod starts;
mod stats;
