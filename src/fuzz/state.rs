//! Entries and images of the state machine.

use annals_wire::internal::{self, entry::Body};
use prost::Message as _;

use crate::{
    state::State,
    storage::{Machine, Section},
};

/// Entries one after the other, as a frame of the journal has them, up to the first that is refused.
pub(super) fn entries(input: &[u8]) -> bool {
    let Ok(frame) = internal::Frame::decode(input) else { return false };
    let mut state = State::default();
    let mut taken = 0;
    for entry in frame.entries {
        let Some(Body::State(bytes)) = entry.body else { continue };
        if Machine::apply(&mut state, entry.number, &bytes).is_err() {
            break;
        }
        taken += 1;
    }
    captured_is_restored(&state);
    taken > 0
}

/// A section of a snapshot.
pub(super) fn image(input: &[u8]) -> bool {
    let mut state = State::default();
    let section = Section { number: 7, bytes: input.to_vec() };
    if state.restore(&section).is_err() {
        return false;
    }
    captured_is_restored(&state);
    true
}

fn captured_is_restored(state: &State) {
    let sections = state.capture(u64::MAX);
    let mut again = State::default();
    for section in &sections {
        again.restore(section).expect("what was captured can be restored");
    }
    assert_eq!(again.capture(u64::MAX), sections);
}
