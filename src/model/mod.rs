//! The power-cut model: the production storage and state on a disk that loses, keeps, reorders and tears what was not
//! flushed.
//!
//! ```text
//! seed -> plan -> history: appends, groups, commits, topics, reads, snapshots, upkeep, commit cycles
//!                  -> the power goes at some call, or kill -9 -> recovery, itself cut again and again -> oracle
//! ```
//!
//! One seed is one history, the same every time. The code under test is the production code; only the disk and the clock
//! are the model's ([`disk::PowerDisk`], `ManualClock`), and the steps are called here instead of by threads. The oracle
//! keeps every byte that was attempted and every answer that was given; its rules are listed in `oracle`.
//!
//! | module | what |
//! |---|---|
//! | [`disk`] | the disk whose power can go |
//! | `plan` | what a history is made of, from the seed or given |
//! | `history` | its steps, its ends, its starts; bits flipped in copies |
//! | `oracle` | what was attempted and promised; the rules |
//! | `sweep` | many seeds, on several threads |
//! | `exhaustive` | every short script, cut everywhere: no lots are drawn |
//! | `nth_call` | a long script in which one call of the disk fails, each in turn |

pub mod disk;
mod exhaustive;
mod history;
#[cfg(test)]
mod nth_call;
mod oracle;
mod plan;
mod rng;
mod sweep;

pub use exhaustive::{Broken, Count, exhaustive, scripts};
pub use history::{Deed, Failure, Outcome, Place, Sink, run, run_traced, run_with};
pub use plan::{Often, Plan, TopicPlan, Values};
pub use sweep::{Sweep, current_seed, sweep};

#[cfg(test)]
mod mutants;
