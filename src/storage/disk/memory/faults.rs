//! Calls that are made to fail, one at a time and exactly counted: "the nth flush fails", for every n.

use std::io;

use crate::sync::{AtomicU64, Ordering};

/// A kind of call to a disk or to a file on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `Disk::create`
    Create,
    /// `Disk::open`
    Open,
    /// `Disk::list`
    List,
    /// `Disk::create_dir`
    CreateDir,
    /// `Disk::rename`
    Rename,
    /// `Disk::remove`
    Remove,
    /// `Disk::remove_dir`
    RemoveDir,
    /// `Disk::sync_dir`
    SyncDir,
    /// `File::read_at`
    Read,
    /// `File::view`
    View,
    /// `File::write_at`
    Write,
    /// `File::sync`
    Sync,
    /// `File::allocate`
    Allocate,
    /// `File::zero`
    Zero,
    /// `File::set_len`
    SetLen,
}

impl Call {
    /// All kinds.
    pub const ALL: [Self; 15] = [
        Self::Create,
        Self::Open,
        Self::List,
        Self::CreateDir,
        Self::Rename,
        Self::Remove,
        Self::RemoveDir,
        Self::SyncDir,
        Self::Read,
        Self::View,
        Self::Write,
        Self::Sync,
        Self::Allocate,
        Self::Zero,
        Self::SetLen,
    ];
}

/// Counts of all calls, and which of them are to fail.
#[derive(Debug, Default)]
pub(super) struct Faults {
    counters: [Counter; Call::ALL.len()],
}

#[derive(Debug, Default)]
struct Counter {
    calls: AtomicU64,
    /// The call that fails, counted from 1; 0: none.
    failing: AtomicU64,
}

impl Faults {
    fn counter(&self, call: Call) -> &Counter {
        self.counters.get(call as usize).expect("one counter per kind of call")
    }

    pub(super) fn fail_nth(&self, call: Call, n: u64) {
        let counter = self.counter(call);
        counter.failing.store(counter.calls.load(Ordering::SeqCst) + n, Ordering::SeqCst);
    }

    pub(super) fn calls(&self, call: Call) -> u64 {
        self.counter(call).calls.load(Ordering::SeqCst)
    }

    /// Counts a call; the error of a broken device if this is the one.
    pub(super) fn pass(&self, call: Call) -> io::Result<()> {
        let counter = self.counter(call);
        let number = counter.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if number == counter.failing.load(Ordering::SeqCst) {
            return Err(rustix::io::Errno::IO.into());
        }
        Ok(())
    }
}
