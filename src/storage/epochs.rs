//! Where the epochs of a partition began: what tells a reader that its history was cut.

/// Most epochs a partition remembers; older ones merge into the oldest.
const MOST_EPOCHS: usize = 1024;

/// The first offset of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EpochStart {
    pub(crate) epoch: u32,
    pub(crate) offset: i64,
}

/// Remembers that `epoch` began at `offset`, if it is new.
pub(crate) fn note_epoch(epochs: &mut Vec<EpochStart>, epoch: u32, offset: i64) {
    if epochs.last().is_none_or(|last| last.epoch < epoch) {
        epochs.push(EpochStart { epoch, offset });
        if epochs.len() > MOST_EPOCHS {
            epochs.remove(1);
        }
    }
}

/// The epoch in which the batch at an offset was stored.
pub(crate) fn epoch_at(epochs: &[EpochStart], offset: i64) -> u32 {
    epochs.iter().rev().find(|start| start.offset <= offset).map_or(0, |start| start.epoch)
}
