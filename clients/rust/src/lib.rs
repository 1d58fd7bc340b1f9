//! The Rust client of Annals.
