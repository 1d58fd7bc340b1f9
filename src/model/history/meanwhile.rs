//! What happens while something else is at work: an append during a flush, as of another thread.

use super::{
    Run,
    batch::Draft,
    life::{Life, try_append},
};
use crate::{
    clock::Clock as _,
    storage::{Level, Mode, Receipt},
    sync::{Arc, Mutex},
};

/// Somebody who appends during a flush.
pub(super) struct Somebody {
    mode: Mode,
    draft: Arc<Draft>,
    receipt: Arc<Mutex<Option<Receipt>>>,
}

impl Run<'_> {
    /// Now and then somebody appends while the next flush, or one soon after, is at work.
    pub(super) fn meanwhile(&mut self, life: &Life) -> Option<Somebody> {
        if !self.rng.one_in(self.plan.meanwhile_one_in) {
            return None;
        }
        let to = self.anywhere(life)?;
        let level = if self.rng.one_in(2) { Level::Fsync } else { Level::Os };
        let mode = Mode { level, atomic: false };
        let now_ms = self.clock.wall_ms();
        let draft = Draft::new(&mut self.rng, to, self.plan.values, &mut self.records, now_ms);
        let (draft, receipt) = (Arc::new(draft), Arc::new(Mutex::new(None)));
        let (storage, theirs, told) = (Arc::clone(&life.storage), Arc::clone(&draft), Arc::clone(&receipt));
        let append = move || {
            *told.lock() =
                try_append(&storage, std::slice::from_ref(&*theirs), mode, &mut |_| Vec::new()).ok();
        };
        self.disk.during_flush(self.rng.next() % 3, Box::new(append));
        Some(Somebody { mode, draft, receipt })
    }

    /// The step is done: what somebody appended meanwhile counts.
    pub(super) fn after_meanwhile(&mut self, life: &Life, somebody: Somebody) -> Result<(), String> {
        self.disk.undisturbed();
        let Somebody { mode, draft, receipt } = somebody;
        let drafts = std::slice::from_ref(&*draft);
        let Some(receipt) = receipt.lock().take() else {
            if self.disk.is_dead() {
                let item = self.attempt(life, drafts, mode, None, Vec::new(), None)?;
                self.oracle.items.push(item);
            }
            return Ok(());
        };
        self.note(|| format!("meanwhile an append {mode:?}: {:?}", receipt.appended));
        let item = self.attempt(life, drafts, mode, None, Vec::new(), Some(&receipt))?;
        self.wait(life, item, receipt.ack);
        Ok(())
    }
}
