//! Room: space in the ring and memory for what is not written yet, set aside before the first lock.
//!
//! 1. Nobody waits for room under a lock; whoever holds [`Room`] never needs more.
//! 2. The last eighth of the ring is for commits, deletes and state ([`Class::Control`]), so that a flood of records
//!    cannot keep a consumer from committing.
//! 3. A promise is counted as if every batch went inline and every item took a frame of its own.

use std::sync::Arc;

use super::error::NoRoom;
use crate::sync::Mutex;

/// Called once when room may be had again.
pub type Wake = Box<dyn FnOnce() + Send>;

/// What the room is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Records.
    Data,
    /// Everything else; may take the last eighth.
    Control,
}

#[derive(Default)]
struct Inner {
    /// Bytes the ring can still take.
    available: u64,
    /// Bytes of the whole ring.
    ring: u64,
    reserved: u64,
    closed: bool,
    waiting: Vec<Wake>,
}

/// The account of what is promised.
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
    /// Most bytes of one item.
    largest: u64,
    /// Most bytes promised at a time.
    memory: u64,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.inner.lock();
        write!(f, "Ledger {{ available: {}, reserved: {} }}", inner.available, inner.reserved)
    }
}

impl Ledger {
    pub(crate) fn new(largest: u64, memory: u64) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), largest, memory: memory.max(largest) })
    }

    /// Sets bytes aside.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64, class: Class) -> Result<Room, NoRoom> {
        if bytes > self.largest {
            return Err(NoRoom::TooLarge);
        }
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(NoRoom::Closed);
        }
        let kept = match class {
            Class::Data => (inner.ring / 8).min(inner.available),
            Class::Control => 0,
        };
        let memory = match class {
            Class::Data => self.memory,
            Class::Control => self.memory + self.memory / 8,
        };
        if inner.reserved + bytes > (inner.available - kept).min(memory) {
            return Err(NoRoom::Busy);
        }
        inner.reserved += bytes;
        Ok(Room { ledger: Arc::clone(self), bytes })
    }

    /// Registers someone to be called when room may be had.
    pub(crate) fn on_room(&self, wake: Wake) {
        self.inner.lock().waiting.push(wake);
    }

    /// The ring changed: so much can still be written to it.
    pub(crate) fn set_available(&self, available: u64, ring: u64) {
        let mut inner = self.inner.lock();
        let more = available > inner.available;
        inner.available = available;
        inner.ring = ring;
        let woken = if more { std::mem::take(&mut inner.waiting) } else { Vec::new() };
        drop(inner);
        call_all(woken);
    }

    /// No more room, for anybody.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let woken = std::mem::take(&mut inner.waiting);
        drop(inner);
        call_all(woken);
    }

    /// Wakes everybody who waits: what kept them out may be gone.
    pub(crate) fn wake(&self) {
        let woken = std::mem::take(&mut self.inner.lock().waiting);
        call_all(woken);
    }

    /// Whether somebody waits.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.inner.lock().waiting.is_empty()
    }

    /// Whether the ring has no room left for records even if nothing else were promised.
    pub(crate) fn is_full(&self) -> bool {
        let inner = self.inner.lock();
        inner.available.saturating_sub(inner.ring / 8) < self.largest
    }

    fn give_back(&self, bytes: u64) {
        let mut inner = self.inner.lock();
        inner.reserved -= bytes;
        let woken = std::mem::take(&mut inner.waiting);
        drop(inner);
        call_all(woken);
    }
}

fn call_all(woken: Vec<Wake>) {
    for wake in woken {
        wake();
    }
}

/// Bytes set aside; given back when dropped.
#[derive(Debug)]
pub struct Room {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.ledger.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{AtomicBool, Ordering};

    #[test]
    fn the_last_eighth_is_not_for_records() {
        let ledger = Ledger::new(1000, 1_000_000);
        ledger.set_available(1600, 1600);
        let first = ledger.reserve(900, Class::Data).unwrap();
        let second = ledger.reserve(500, Class::Data).unwrap();
        assert_eq!(ledger.reserve(1, Class::Data).unwrap_err(), NoRoom::Busy);
        let control = ledger.reserve(200, Class::Control).unwrap();
        assert_eq!(ledger.reserve(1, Class::Control).unwrap_err(), NoRoom::Busy);
        assert_eq!(ledger.reserve(1001, Class::Data).unwrap_err(), NoRoom::TooLarge);
        drop((first, second, control));
        assert!(ledger.reserve(1000, Class::Data).is_ok());
    }

    #[test]
    fn giving_back_wakes_and_closing_refuses() {
        let ledger = Ledger::new(100, 1000);
        ledger.set_available(800, 800);
        let woken = Arc::new(AtomicBool::new(false));
        let room = ledger.reserve(100, Class::Data).unwrap();
        let flag = Arc::clone(&woken);
        ledger.on_room(Box::new(move || flag.store(true, Ordering::SeqCst)));
        assert!(ledger.is_wanted());
        drop(room);
        assert!(woken.load(Ordering::SeqCst));
        ledger.close();
        assert_eq!(ledger.reserve(1, Class::Control).unwrap_err(), NoRoom::Closed);
    }
}
