//! A thread that does something at the times of a schedule.
//!
//! A thread and not a task: a task's timers have a grain of a millisecond, and a task waits for others; both would be
//! measured as the server's.

use std::{io, num::NonZero, ops::ControlFlow, time::Duration};

use super::schedule::{Schedule, pace};
use crate::{
    cli::exit::{Failure, io_failure},
    clock::Clock,
    sync::{Arc, AtomicBool, Ordering},
};

/// Calls `send` with each time of the schedule before `until`, or until it breaks or is told to stop.
pub(super) fn start(
    clock: Arc<dyn Clock>,
    schedule: Schedule,
    until: Duration,
    stop: Arc<AtomicBool>,
    mut send: impl FnMut(Duration) -> ControlFlow<()> + Send + 'static,
) -> Result<(), Failure> {
    let run = move || {
        // The kernel may wake a sleeper 50 us late unless told otherwise. If it will not be told, that much is measured.
        let _ = rustix::thread::set_current_timer_slack(NonZero::new(1));
        pace(&*clock, schedule, until, std::thread::sleep, |intended| {
            if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { send(intended) }
        });
    };
    let started: io::Result<_> = std::thread::Builder::new().name("annals-bench-pace".to_owned()).spawn(run);
    started.map(drop).map_err(|error| io_failure("no thread can be started", &error))
}
