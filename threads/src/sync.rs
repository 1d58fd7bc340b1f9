//! Stand-ins for `src/sync.rs`: the same names and rules, on shuttle's types.
//!
//! 1. Locks do not poison: a panic ends the whole run anyway.
//! 2. Time does not exist. The commit thread's waits end when they are notified, or, if [`let_waits_end`] says so, at some
//!    moment that chance picks; where it does not, a notification that is lost is a deadlock, and shuttle reports it. Every
//!    other limit is a tick of somebody who looks around now and then, and over at once.
//! 3. `ArcSwap` and `OnceLock` have no stand-in of shuttle's: each access is one step here, behind a point at which others
//!    may run.

use std::{
    cell::Cell,
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

pub use std::sync::{Arc, Weak};

use shuttle::rand::{Rng as _, thread_rng};
pub use shuttle::{
    sync::{
        RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

std::thread_local! {
    static WAITS_END: Cell<bool> = const { Cell::new(false) };
}

/// Whether the commit thread's waits may end without a notification, in the runs of the calling test.
pub fn let_waits_end(may: bool) {
    WAITS_END.set(may);
}

/// The waits that must not need their limit.
const COUNTED: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// A lock.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(shuttle::sync::Mutex<T>);

/// A held lock.
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a shuttle::sync::Mutex<T>,
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn into_inner(self) -> T {
        self.0.into_inner().expect("a panic ends the run")
    }
}

impl<T: ?Sized> Mutex<T> {
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { lock: &self.0, held: Some(self.0.lock().expect("a panic ends the run")) }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.held.as_ref().expect("held unless it waits")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("held unless it waits")
    }
}

/// A condition to wait for.
#[derive(Debug, Default)]
pub struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect("held until it waits");
        guard.held = Some(self.0.wait(held).expect("a panic ends the run"));
    }

    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, at_most: Duration) {
        if COUNTED.contains(&at_most) && !(WAITS_END.get() && thread_rng().gen_bool(0.5)) {
            return self.wait(guard);
        }
        // It is over, but others were here meanwhile.
        guard.held = None;
        thread::yield_now();
        guard.held = Some(guard.lock.lock().expect("a panic ends the run"));
    }
}

/// A lock for readers or a writer.
#[derive(Default)]
pub struct RwLock<T: ?Sized>(shuttle::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::RwLock::new(value))
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().expect("a panic ends the run")
    }

    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().expect("a panic ends the run")
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().expect("a panic ends the run")
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RwLock")
    }
}

/// A pointer that is swapped whole.
pub struct ArcSwap<T>(shuttle::sync::Mutex<Arc<T>>);

impl<T> ArcSwap<T> {
    pub fn new(value: Arc<T>) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn from_pointee(value: T) -> Self {
        Self::new(Arc::new(value))
    }

    pub fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().expect("a panic ends the run"))
    }

    pub fn load_full(&self) -> Arc<T> {
        self.load()
    }

    pub fn store(&self, value: Arc<T>) {
        *self.0.lock().expect("a panic ends the run") = value;
    }
}

impl<T> fmt::Debug for ArcSwap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArcSwap")
    }
}

/// A value that is set once.
pub struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    touched: AtomicBool,
}

impl<T> OnceLock<T> {
    pub const fn new() -> Self {
        Self { value: std::sync::OnceLock::new(), touched: AtomicBool::new(false) }
    }

    pub fn get(&self) -> Option<&T> {
        self.touched.load(Ordering::SeqCst);
        self.value.get()
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.touched.store(true, Ordering::SeqCst);
        self.value.get_or_init(make)
    }

    pub fn set(&self, value: T) -> Result<(), T> {
        self.touched.store(true, Ordering::SeqCst);
        self.value.set(value)
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnceLock")
    }
}
