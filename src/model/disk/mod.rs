//! A disk whose power can go.
//!
//! Each file has two images: what the process sees, and what would be there after a cut. Only a flush that returned makes
//! them equal. Any other page that changed may have been written back at any moment and in any order, also in an older
//! version, and at the cut each of its 512-byte sectors may be old or new. A file's length survives with or without its
//! data. Names survive as a prefix of what was done in their directory since it was last flushed. A flush that fails leaves
//! its pages clean, half of them lost, and the next flush succeeds.
//!
//! The call at which the power goes is either not carried out or carried out and not answered.

mod calls;
mod fault;
mod image;
mod keep;
mod names;

use std::{fmt, io};

use super::rng::Rng;
use crate::sync::{Arc, Mutex};

pub use calls::Op;
pub use fault::Fault;
use image::{Image, Torn};
pub use keep::Keep;
use names::{Kind, Names};

/// The machine's disk in the model.
#[derive(Clone, Debug)]
struct State {
    rng: Rng,
    /// By node; `None` = the file has no name and no handle that counts.
    files: Vec<Option<Box<Image>>>,
    names: Names,
    /// Calls until the power goes.
    fuse: Option<u64>,
    /// And then not before the next flush, where everything is in flight.
    in_flush: bool,
    dead: bool,
    death: Option<Death>,
    /// Calls that are to fail.
    fault: Option<Fault>,
    faults_met: u64,
    failed_calls: Vec<Death>,
    flush_failed: bool,
    /// What is done while a flush is at work, and flushes until then.
    meanwhile: Option<(u64, Meanwhile)>,
    /// Handles of an earlier life do nothing.
    life: u64,
    work: Work,
    trace: u64,
}

/// Something that another thread does while a flush is at work. A copy of the disk does not do it again.
#[derive(Clone)]
struct Meanwhile(Arc<Mutex<Option<Deed>>>);

type Deed = Box<dyn FnOnce() + Send>;

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

/// What was asked of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Calls.
    pub calls: u64,
    /// Of these, such as change something.
    pub changes: u64,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

/// The call at which the power went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// What was asked.
    pub op: Op,
    /// Of which file or directory; a file goes by the name it was opened under.
    pub path: String,
    /// Where in it.
    pub position: u64,
}

/// What a cut left of the writes that no flush had covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// A frame of the journal is there in part.
    pub torn_frame: bool,
    /// A batch in a segment is there in part.
    pub torn_batch: bool,
    /// In some file a whole write lies behind one that is not whole.
    pub whole_behind_hole: bool,
}

/// A disk whose power can go. Clones are the same disk.
#[derive(Clone)]
pub struct PowerDisk {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for PowerDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PowerDisk")
    }
}

fn dead() -> io::Error {
    io::Error::other("the power is gone")
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Carried out, not answered.
    Done,
    /// Not carried out.
    Lost,
}

impl State {
    fn call(&mut self, op: Op, path: &str, position: u64, length: u64) -> Fate {
        if self.dead {
            return Fate::Lost;
        }
        self.work.calls += 1;
        match op {
            Op::Read | Op::View => self.work.read += length,
            Op::Write => self.work.written += length,
            _ => {}
        }
        self.note(op as u64);
        self.note(position);
        self.note(length);
        path.as_bytes().chunks(8).for_each(|part| {
            let mut word = [0; 8];
            word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.note(u64::from_le_bytes(word));
        });
        if self.rng.one_in(16) {
            let rng = &mut self.rng;
            let dirty = self.files.iter_mut().flatten().filter(|image| image.is_dirty());
            dirty.for_each(|image| image.write_back_some(rng));
        }
        // A cut between two reads is the cut before the next change, so most of them do not count.
        let reads = matches!(op, Op::Open | Op::List | Op::Len | Op::Read | Op::View);
        self.work.changes += u64::from(!reads);
        if reads && !self.rng.one_in(8) {
            return Fate::Answered;
        }
        match &mut self.fuse {
            Some(0) if self.in_flush && op != Op::Sync => Fate::Answered,
            Some(0) => {
                self.dead = true;
                self.death = Some(Death { op, path: path.to_owned(), position });
                if self.rng.one_in(2) { Fate::Done } else { Fate::Lost }
            }
            Some(left) => {
                *left -= 1;
                Fate::Answered
            }
            None => Fate::Answered,
        }
    }

    fn finish<T>(&mut self, fate: Fate, run: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        match fate {
            Fate::Lost => Err(dead()),
            Fate::Answered => run(self),
            Fate::Done => {
                let _nobody_is_told = run(self);
                Err(dead())
            }
        }
    }

    /// Hashes a word into the trace.
    fn note(&mut self, word: u64) {
        self.trace = (self.trace.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn revive(&mut self) {
        self.dead = false;
        self.death = None;
        self.fuse = None;
        self.fault = None;
        self.faults_met = 0;
        self.flush_failed = false;
        self.meanwhile = None;
        self.life += 1;
        let mut named = vec![false; self.files.len()];
        for node in self.names.named() {
            if let Some(named) = named.get_mut(node) {
                *named = true;
            }
        }
        self.files.iter_mut().zip(named).filter(|(_, named)| !named).for_each(|(file, _)| *file = None);
    }
}

impl PowerDisk {
    /// An empty disk whose behaviour is all in the seed.
    pub fn new(seed: u64) -> Self {
        Self::with(Rng::new(seed))
    }

    /// From here on nothing happens by chance: nothing is written back by itself, calls that change nothing are not
    /// counted, the call at which the power goes is not carried out, a flush that fails loses all of its pages. What a cut
    /// leaves is to be chosen with [`PowerDisk::power_up_with`].
    pub fn be_still(&self) {
        self.state.lock().rng = Rng::still();
    }

    fn with(rng: Rng) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                rng,
                files: Vec::new(),
                names: Names::default(),
                fuse: None,
                in_flush: false,
                dead: false,
                death: None,
                fault: None,
                faults_met: 0,
                failed_calls: Vec::new(),
                flush_failed: false,
                meanwhile: None,
                life: 0,
                work: Work::default(),
                trace: 0,
            })),
        }
    }

    /// Another disk that holds the same and goes its own way from here; its handles are new ones.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.state.lock().clone();
        state.revive();
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The power goes at the call after so many, or, once in three times, at the first flush after that. Of calls that
    /// change nothing every eighth counts.
    pub fn cut_after(&self, calls: u64) {
        let mut state = self.state.lock();
        state.fuse = Some(calls);
        state.in_flush = state.rng.one_in(3);
    }

    /// Calls left until the power goes.
    pub fn fuse(&self) -> Option<u64> {
        self.state.lock().fuse
    }

    /// The power stays.
    pub fn cut_never(&self) {
        self.state.lock().fuse = None;
    }

    /// While the flush after so many is at work, when it has taken what it takes and has not returned, `run` runs.
    pub fn during_flush(&self, flushes: u64, run: Deed) {
        self.state.lock().meanwhile = Some((flushes, Meanwhile(Arc::new(Mutex::new(Some(run))))));
    }

    /// Nothing happens during flushes any more.
    pub fn undisturbed(&self) {
        self.state.lock().meanwhile = None;
    }

    /// What is due now that a flush is at work.
    fn meanwhile(&self) {
        let mut state = self.state.lock();
        let due = match &mut state.meanwhile {
            Some((0, _)) => state.meanwhile.take(),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        drop(state);
        if let Some(run) = due.and_then(|(_, Meanwhile(run))| run.lock().take()) {
            run();
        }
    }

    /// Whether the power is gone.
    pub fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    /// The call at which it went, if it went at one.
    pub fn death(&self) -> Option<Death> {
        self.state.lock().death.clone()
    }

    /// What was asked of it so far.
    pub fn work(&self) -> Work {
        self.state.lock().work
    }

    /// A hash over every call so far.
    pub fn trace_hash(&self) -> u64 {
        self.state.lock().trace
    }

    /// The power comes back: what a cut left is what there is. Handles of the life before are dead for good.
    pub fn power_up(&self) -> Remains {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.names.cut(&mut state.rng);
        let torn: Vec<Option<Torn>> = state
            .files
            .iter_mut()
            .map(|image| image.as_mut().map(|image| image.cut(&mut state.rng)))
            .collect();
        let mut remains = Remains::default();
        for (path, kind) in state.names.all() {
            let Kind::File(node) = kind else { continue };
            let Some(torn) = torn.get(node).copied().flatten() else { continue };
            remains.torn_frame |= torn.partly && path.starts_with("journal/");
            remains.torn_batch |= torn.partly && path.starts_with("topics/");
            remains.whole_behind_hole |= torn.whole_behind_hole;
        }
        state.revive();
        remains
    }

    /// `kill -9` and a start: everything written is seen, flushed or not.
    pub fn restart_process(&self) {
        self.state.lock().revive();
    }

    /// Every file with its length.
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.state.lock();
        let length = |kind| match kind {
            Kind::File(node) => state.files.get(node)?.as_ref().map(|image| image.length() as u64),
            Kind::Directory => None,
        };
        state.names.all().filter_map(|(path, kind)| Some((path.clone(), length(kind)?))).collect()
    }

    /// Changes one bit of a file, on the disk and in memory. `false`: there is no such byte.
    pub fn flip_bit(&self, path: &str, position: u64, bit: usize) -> bool {
        let mut state = self.state.lock();
        let Some(Kind::File(node)) = state.names.get(path) else { return false };
        let image = state.files.get_mut(node).and_then(Option::as_mut);
        image.is_some_and(|image| image.flip(usize::try_from(position).unwrap_or(usize::MAX), bit))
    }

    /// A hash over all that is seen below a prefix: names and bytes.
    pub fn fingerprint(&self, below: &str) -> u32 {
        let state = self.state.lock();
        let mut hasher = crc32fast::Hasher::new();
        for (path, kind) in state.names.all().filter(|(path, _)| path.starts_with(below)) {
            hasher.update(path.as_bytes());
            if let Kind::File(node) = kind
                && let Some(image) = state.files.get(node).and_then(Option::as_ref)
            {
                image.hash_into(&mut hasher);
            }
        }
        hasher.finalize()
    }
}
