//! Groups of member processes under fire: the built server and real members, killed, stopped and added while records flow.
//!
//! A member is this very binary, called with a name in its environment (see [`member`]): it reads, commits what it was given
//! and says on its standard output what it was told, so that the test can hold all of them against each other.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has to fail"
)]

mod chaos;
mod member;
mod rate;
mod share;
mod site;
