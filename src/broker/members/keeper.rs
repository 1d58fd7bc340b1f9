//! The thread that looks after groups with members: silence, overdue hand-overs, topics that came or went.

use std::{io, time::Duration};

use super::{super::Broker, beat::TICK};
use crate::sync::{
    Arc, Condvar, Mutex,
    thread::{self, JoinHandle},
};

/// How often the keeper looks whether there is somebody to look after.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Calls {
    /// Topics were made, changed or deleted.
    topics: bool,
    /// The first member came.
    members: bool,
    stop: bool,
}

/// Calls for the keeper.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    calls: Mutex<Calls>,
    called: Condvar,
}

impl Keeper {
    /// Topics were made, changed or deleted: who reads by name or prefix may get more, or less.
    pub(crate) fn topics_changed(&self) {
        self.calls.lock().topics = true;
        self.called.notify_one();
    }

    /// There is somebody to look after.
    pub(crate) fn member_came(&self) {
        self.calls.lock().members = true;
        self.called.notify_one();
    }

    /// Whether topics changed since the last call.
    pub(crate) fn take_topics(&self) -> bool {
        std::mem::take(&mut self.calls.lock().topics)
    }

    pub(crate) fn stop(&self) {
        self.calls.lock().stop = true;
        self.called.notify_one();
    }

    /// Waits for a call, at most so long; true = stop.
    fn wait(&self, at_most: Duration) -> bool {
        let mut calls = self.calls.lock();
        if !calls.stop && !calls.topics && !calls.members {
            self.called.wait_for(&mut calls, at_most);
        }
        calls.members = false;
        calls.stop
    }

    /// Starts the thread.
    pub(crate) fn start(broker: &Arc<Broker>) -> io::Result<JoinHandle<()>> {
        let broker = Arc::clone(broker);
        let run = move || {
            let mut rest = TICK;
            while !broker.keeper.wait(rest) {
                rest = if broker.tend_groups() { TICK } else { IDLE };
            }
        };
        thread::Builder::new().name("groups".to_owned()).spawn(run)
    }
}
