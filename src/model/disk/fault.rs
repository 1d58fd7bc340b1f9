//! Calls that fail: the n-th of its kind, once or from then on.

use std::io;

use rustix::io::Errno;

use super::{Death, Op, PowerDisk, State};

/// Calls that fail. A write that fails has written half; a flush that fails has lost pages and made all of them clean;
/// anything else has done nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which calls.
    pub op: Op,
    /// So many go well before.
    pub after: u64,
    /// All that follow fail as well.
    pub lasting: bool,
    /// With which error.
    pub error: Errno,
}

impl Fault {
    /// The flush after so many fails, once.
    pub(in crate::model) fn flush_after(after: u64) -> Self {
        Self { op: Op::Sync, after, lasting: false, error: Errno::IO }
    }
}

impl State {
    /// The error of a call that is to fail.
    pub(super) fn fault(&mut self, op: Op, path: &str, position: u64, life: u64) -> Option<io::Error> {
        if self.dead || self.life != life {
            return None;
        }
        let fault = self.fault.as_mut().filter(|fault| fault.op == op)?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        let error = fault.error.into();
        if !fault.lasting {
            self.fault = None;
        }
        self.faults_met += 1;
        self.flush_failed |= op == Op::Sync;
        self.failed_calls.push(Death { op, path: path.to_owned(), position });
        Some(error)
    }
}

impl PowerDisk {
    /// These calls fail from now on, in this life.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state.lock().fault = fault;
    }

    /// Calls that are still to fail.
    pub fn fault(&self) -> Option<Fault> {
        self.state.lock().fault
    }

    /// Calls that failed in this life.
    pub fn faults_met(&self) -> u64 {
        self.state.lock().faults_met
    }

    /// All calls that ever failed.
    pub fn failed_calls(&self) -> Vec<Death> {
        self.state.lock().failed_calls.clone()
    }

    /// Whether a flush failed in this life.
    pub fn flush_failed(&self) -> bool {
        self.state.lock().flush_failed
    }
}
