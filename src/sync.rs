//! Locks and atomics: the one place that names them.
//!
//! Everything that is shared between threads is built from these names (`tests/tidy.rs` holds it), so that a
//! checker of interleavings can take their place in one file: `threads/` compiles `src/storage` once more over
//! `threads/src/sync.rs`, and no other file changes.
//!
//! What a replacement has to keep:
//! 1. Locks do not poison. A panic under a lock ends the process (`panic = "abort"`), so there is nobody who
//!    could look at a half-made change.
//! 2. A `Condvar` may wake without a reason: waiters test their condition in a loop.
//! 3. `Mutex` and `RwLock` are not fair by themselves; nothing may depend on the order in which waiters get in.
//!
//! The async half of the process (doors and broker) waits with `tokio::sync`, which is not named here.

pub use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// Threads of the engine.
pub use std::thread;

pub use arc_swap::{ArcSwap, ArcSwapOption};
pub use parking_lot::{
    Condvar, MappedMutexGuard, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    WaitTimeoutResult,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// What the engine relies on without saying so: a lock taken by a thread that panicked is simply free again.
    #[test]
    fn locks_do_not_poison() {
        let shared = Arc::new(Mutex::new(0_u32));
        let theirs = Arc::clone(&shared);
        let outcome = thread::spawn(move || {
            let mut held = theirs.lock();
            *held = 7;
            panic!("leaves the lock by a panic");
        })
        .join();
        assert!(outcome.is_err());
        assert_eq!(*shared.lock(), 7);
    }
}
