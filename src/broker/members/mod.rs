//! Groups at work: who is heard, who was asked for what, and what each member is told.
//!
//! Who is a member and who owns what is durable and lives in [`state`](crate::state); here is what a restart may forget:
//!
//! ```text
//!   ears (the door's task: what the member says) ---> Desk ---> mouth (Consumption: what the member is told)
//!                                                      ^
//!   coordinator (join, leave, released; the keeper) ---+  under the locks of groups and sessions
//! ```
//!
//! 1. **A change of hands is one journal entry, durable before anybody is told of it.** It is decided, entered, applied and
//!    put on the desks of those it concerns under one lock, so every desk has its news in the order of the journal.
//! 2. **Liveness is messages.** A member is out when it was silent for the session timeout; a connection that ends says
//!    nothing but that its name may come back at once. Time here is the [`Beat`](beat::Beat): it stands still while the
//!    process does, so a pause of the broker expires nobody.
//! 3. **A commit is its owner's or nobody's**: it is judged under the lock of the groups against (member, partition, epoch).
//!    So a partition that changes hands starts where the last commit of its old owner left it, and no commit of that owner
//!    comes after.
//! 4. **A name that comes back in time keeps its partitions**, under new epochs: what its former self still says is told
//!    apart, and nobody else is disturbed.
//! 5. A mouth that cannot speak (its reader does not read) does not stop the ears: a slow reader stays a member.
//!
//! | file | what |
//! |---|---|
//! | `beat` | time as sessions count it |
//! | `sessions` | who is heard and who was asked for what; pure |
//! | `desk` | what lies between ears, mouth and coordinator |
//! | `coordinate` | join, leave, released; silence and overdue hand-overs; the keeper's thread |
//! | `consumption`, `events` | the mouth, and what it says |
//! | `member` | the ears' side of the broker |

mod beat;
mod consumption;
mod coordinate;
mod desk;
mod events;
mod keeper;
mod member;
mod sessions;

pub use consumption::Consumption;
pub use events::{AssignedPartition, MemberEvent, Place};
pub use member::{Join, MemberHandle};

pub(super) use beat::Beat;
pub(super) use keeper::Keeper;
pub(super) use sessions::Sessions;
