//! A whole server, seen from outside: every call over a real connection.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has to fail"
)]

mod bodies;
mod calls;
mod catalogue;
mod damage;
mod failures;
mod full_disk;
mod gate;
mod lifecycle;
mod members;
mod reasons;
mod streams;
mod support;
