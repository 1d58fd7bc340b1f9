//! The power-cut model: the production storage on a disk that loses, keeps, reorders and tears what was not flushed.
//!
//! ```text
//! history (a seed) -> appends, groups, state, steps of commit, snapshot, upkeep -> the power goes, or kill -9
//!                  -> recovery, itself cut again and again -> oracle
//! ```
//!
//! One seed is one history, the same every time. The code under test is the production code; only the disk and the clock
//! are the model's ([`disk::PowerDisk`], `ManualClock`), and the steps are called here instead of by threads.

pub mod disk;
pub mod history;
mod image;
mod oracle;
mod plan;
mod rng;

pub use history::{Failure, Outcome, run, run_with};
pub use plan::{Often, Plan, TopicPlan, Values};

#[cfg(test)]
mod mutants;
