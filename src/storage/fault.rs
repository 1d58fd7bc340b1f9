//! Loads from a map that the system cannot satisfy: the disk does not read, or somebody cut the file. The kernel sends
//! SIGBUS, which would end the process for the sake of one file. Here it ends one read instead.
//!
//! A handler looks the address up in a registry of our maps. In one of them: it notes the fault in the map's flag and
//! puts a page of zeros over the lost one, so that the load goes on. What was loaded then fails its checksum. Anywhere else: as if
//! the handler were not there, the one that was there before is called, or the signal's default action ends the process.
//!
//! 1. The handler takes no lock, allocates nothing and touches only atomics of static memory, and the flag of the very map
//!    in which its own thread is stuck, which therefore cannot go away meanwhile.
//! 2. A map is registered before bytes of it are lent, and forgotten before its pages are unmapped: an address that
//!    the kernel gives to somebody else is never taken for ours.
//! 3. It is installed when the first map is made, once, also in a process that uses this crate as a library. A handler
//!    installed later by others takes its place, and should call on as this one does.
//!
//! No signal comes where the kernel itself reads the page, as `write(2)` to a socket does: that call fails with EFAULT.

use std::{io, ptr};

use libc::{c_int, c_void, siginfo_t};

use crate::{
    metrics,
    sync::{Arc, AtomicBool, AtomicPtr, AtomicUsize, Mutex, OnceLock, Ordering},
};

/// Maps that can be watched at a time; whoever wants more reads in another way.
pub(crate) const MOST: usize = 32 * 1024;

/// One map, or none. `version` is odd while the rest changes.
struct Slot {
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    flag: AtomicPtr<AtomicBool>,
}

impl Slot {
    const fn new() -> Self {
        Self {
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            flag: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Only by its owner, so by one thread at a time.
    fn set(&self, start: usize, end: usize, flag: *mut AtomicBool) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Each Release keeps the odd version in front of it.
        self.start.store(start, Ordering::Release);
        self.end.store(end, Ordering::Release);
        self.flag.store(flag, Ordering::Release);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// The flag of the map, if the address lies in it.
    fn holding(&self, address: usize) -> Option<*mut AtomicBool> {
        let before = self.version.load(Ordering::Acquire);
        let (start, end) = (self.start.load(Ordering::Acquire), self.end.load(Ordering::Acquire));
        let flag = self.flag.load(Ordering::Acquire);
        let whole = before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before;
        (whole && (start..end).contains(&address)).then_some(flag)
    }
}

static SLOTS: [Slot; MOST] = [const { Slot::new() }; MOST];
/// Slots from here on have never been used.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Slots before that which are free again. Never touched by the handler.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
/// Bytes of a page; set before the handler is installed.
static PAGE: AtomicUsize = AtomicUsize::new(4096);
/// What was there before; `None` if the handler could not be installed.
static BEFORE: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// A map's place in the registry.
#[derive(Debug)]
pub(crate) struct Watch {
    slot: usize,
    /// What the handler's pointer points to.
    _flag: Arc<AtomicBool>,
}

/// Watches a map of `length` bytes at `start`, which begins with a page. `flag` is set when a load from it failed.
///
/// `None`: it cannot be watched, so it must not be used.
pub(crate) fn watch(start: usize, length: usize, flag: &Arc<AtomicBool>) -> Option<Watch> {
    BEFORE.get_or_init(install).as_ref()?;
    let index = free_slot()?;
    let slot = SLOTS.get(index)?;
    let end = (start + length).next_multiple_of(PAGE.load(Ordering::Relaxed));
    slot.set(start, end, Arc::as_ptr(flag).cast_mut());
    Some(Watch { slot: index, _flag: Arc::clone(flag) })
}

fn free_slot() -> Option<usize> {
    let mut free = FREE.lock();
    if let Some(index) = free.pop() {
        return Some(index);
    }
    // Only under the lock.
    let next = USED.load(Ordering::Relaxed);
    (next < MOST).then(|| {
        USED.store(next + 1, Ordering::Release);
        next
    })
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(slot) = SLOTS.get(self.slot) {
            slot.set(0, 0, ptr::null_mut());
        }
        FREE.lock().push(self.slot);
    }
}

/// Installs the handler; returns the action it took the place of.
#[expect(unsafe_code, reason = "no safe crate installs a handler that gets the address")]
fn install() -> Option<libc::sigaction> {
    PAGE.store(rustix::param::page_size(), Ordering::Relaxed);
    // SAFETY: all zeros is a valid `sigaction`, the default action without flags. The kernel reads and writes structures
    // that outlive the calls. The handler keeps rule 1 above, and runs on the thread's own signal stack if it has one.
    let installed = unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        let mut ours: libc::sigaction = std::mem::zeroed();
        ours.sa_sigaction = handle as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        (libc::sigaction(libc::SIGBUS, &raw const ours, &raw mut before) == 0).then_some(before)
    };
    if installed.is_none() {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "no handler for SIGBUS: files are read, not mapped");
    }
    installed
}

#[expect(unsafe_code, reason = "what the kernel hands over are pointers")]
extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: a handler installed with SA_SIGINFO is given valid information; a positive code means that a load failed,
    // and then there is an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code > 0 && cover(address) {
        return;
    }
    match BEFORE.get() {
        Some(Some(before)) if !matches!(before.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) => {
            call_on(before, signal, info, context);
        }
        _ => give_up(signal, code),
    }
}

/// Puts zeros over the page of an address, if it lies in one of our maps.
#[expect(unsafe_code, reason = "the page's neighbours stay as they are: only a raw map can do that")]
fn cover(address: usize) -> bool {
    let page_size = PAGE.load(Ordering::Relaxed);
    let used = USED.load(Ordering::Acquire);
    let Some(flag) = SLOTS.iter().take(used).find_map(|slot| slot.holding(address)) else { return false };
    let page = (address - address % page_size) as *mut c_void;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: this thread is stuck in a load from the map that the slot names, so its owner, and with it the flag, lives
    // until we return. Exactly one page is replaced, which lies within that map and which nobody can read anyway.
    // errno belongs to the code that was interrupted.
    unsafe {
        (*flag).store(true, Ordering::Release);
        let errno = *libc::__errno_location();
        let put = libc::mmap(page, page_size, libc::PROT_READ, flags, -1, 0);
        *libc::__errno_location() = errno;
        if put == libc::MAP_FAILED {
            return false;
        }
    }
    metrics::map_fault();
    true
}

#[expect(unsafe_code, reason = "a handler's address is a number to the kernel")]
fn call_on(before: &libc::sigaction, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the address came from the kernel, which would have called it in this very way, as the flag says.
    unsafe {
        if before.sa_flags & libc::SA_SIGINFO == 0 {
            let handler: extern "C" fn(c_int) = std::mem::transmute(before.sa_sigaction);
            handler(signal);
        } else {
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                std::mem::transmute(before.sa_sigaction);
            handler(signal, info, context);
        }
    }
}

/// The default action: the load is tried again and ends the process; a signal that somebody sent is sent again.
#[expect(unsafe_code, reason = "permitted in a handler are only the system's own calls")]
fn give_up(signal: c_int, code: c_int) {
    // SAFETY: both calls are permitted in a signal handler, and the structure outlives the call.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &raw const default, ptr::null_mut());
        if code <= 0 {
            libc::raise(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use crate::storage::map::{Usage, map};

    const INSIDE: &str = "ANNALS_FOREIGN_FAULT";

    fn file_of(length: u64) -> std::fs::File {
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![7; usize::try_from(length).unwrap()], 0)
            .unwrap();
        file
    }

    #[test]
    fn a_file_cut_under_its_map_reads_as_zeros_and_is_flagged() {
        let usage = Usage::new(4, u64::MAX);
        let (file, other) = (file_of(100_000), file_of(100_000));
        let flags = [Arc::default(), Arc::default()];
        let bytes = map(&file, 100_000, &usage, &flags[0]).unwrap().unwrap();
        let others = map(&other, 100_000, &usage, &flags[1]).unwrap().unwrap();
        file.set_len(8192).unwrap();
        let before = metrics::map_faults();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    assert!(bytes[..8192].iter().all(|byte| *byte == 7), "what is left is not touched");
                    assert!(bytes[8192..].iter().all(|byte| *byte == 0));
                });
            }
        });
        assert!(metrics::map_faults() >= before + 23, "23 pages were lost");
        assert!(flags[0].load(Ordering::Acquire) && !flags[1].load(Ordering::Acquire));
        assert!(others.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn slots_come_back() {
        let flag = Arc::default();
        let first = watch(1 << 40, 4096, &flag).unwrap();
        let slot = first.slot;
        assert!(SLOTS[slot].holding((1 << 40) + 4095).is_some());
        assert!(SLOTS[slot].holding((1 << 40) + 4096).is_none());
        drop(first);
        assert!(SLOTS[slot].holding(1 << 40).is_none(), "forgotten with the map");
    }

    /// Runs a test of this file again in a process of its own; `None`: this is that process.
    fn alone(name: &str) -> Option<std::process::ExitStatus> {
        if std::env::var_os(INSIDE).is_some() {
            return None;
        }
        let name = format!("storage::fault::tests::{name}");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        Some(child.args(["--exact", &name]).env(INSIDE, "1").output().unwrap().status)
    }

    #[test]
    #[expect(unsafe_code, reason = "a map that is not ours is what this is about")]
    fn a_fault_elsewhere_still_ends_the_process() {
        if let Some(status) = alone("a_fault_elsewhere_still_ends_the_process") {
            assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
            return;
        }
        let _ours = map(file_of(10_000), 10_000, &Usage::new(1, u64::MAX), &Arc::default()).unwrap().unwrap();
        let file = file_of(10_000);
        // SAFETY: none is needed: the process is meant to end here.
        let foreign = unsafe { memmap2::Mmap::map(&file).unwrap() };
        file.set_len(0).unwrap();
        let sum: u64 = foreign.iter().map(|byte| u64::from(*byte)).sum();
        panic!("still there, and read {sum}");
    }

    #[test]
    #[expect(unsafe_code, reason = "only the system's own call makes a handler the default again")]
    fn a_signal_that_was_sent_still_ends_the_process() {
        if let Some(status) = alone("a_signal_that_was_sent_still_ends_the_process") {
            assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
            return;
        }
        // The standard library has a handler of its own, for overflowing stacks; a program in another language has none.
        // SAFETY: the default action is the one a process begins with.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
        let _ours = map(file_of(10_000), 10_000, &Usage::new(1, u64::MAX), &Arc::default()).unwrap().unwrap();
        // SAFETY: it takes a number.
        unsafe { libc::raise(libc::SIGBUS) };
        panic!("still there");
    }
}
