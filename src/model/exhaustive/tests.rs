//! The search finds nothing in the sound code, and the mistakes that are planted.

use super::*;
use crate::storage::mutant::{
    Mutant::{self, *},
    plant,
};
use Deed::{Cut, Group, Kill, Large, Lower, Offsets, Put, Raise, Roll, Snapshot, SyncPoint, Weak, WeakRoll};

fn sound(alphabet: &[Deed], length: usize) -> Count {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let count = exhaustive(alphabet, length, threads, &|| {}).unwrap_or_else(|broken| panic!("{broken}"));
    println!("{length} steps of {}: {count:?}", alphabet.len());
    count
}

/// All pairs; all triples are for `annals crash-model --exhaustive 3`.
#[test]
fn every_script_of_two_steps_keeps_its_promises() {
    let count = sound(&Deed::ALL, 2);
    // All but those that would raise what is raised, lower what is lowered, delete what is gone.
    assert!(count.scripts > scripts(Deed::ALL.len(), 2) - 10, "{count:?}");
    assert!(
        count.cuts > 8 * count.scripts && count.cases > 5 * count.cuts && count.starts == 4 * count.cases,
        "{count:?}"
    );
}

#[test]
fn every_script_of_three_steps_of_the_core_keeps_its_promises() {
    let count = sound(&[Put, Weak, WeakRoll, Kill], 3);
    assert_eq!(count.scripts, scripts(4, 3));
    assert!(
        count.cuts > 8 * count.scripts && count.cases > 5 * count.cuts && count.starts == 4 * count.cases,
        "{count:?}"
    );
}

#[test]
fn the_same_search_is_the_same() {
    let alphabet = [Put, Roll, Cut];
    assert_eq!(sound(&alphabet, 2), exhaustive(&alphabet, 2, 1, &|| {}).unwrap());
    assert_ne!(sound(&alphabet, 2).hash, sound(&[Put, Roll, Kill], 2).hash);
}

#[test]
fn numbers_of_scripts_are_all_scripts_once() {
    let alphabet = [Put, Weak, Cut];
    let mut all: Vec<Vec<Deed>> = (0..scripts(3, 3)).map(|number| script_of(&alphabet, number)).collect();
    assert_eq!((all.len(), &all[0][..], &all[3][..]), (3 + 9 + 27, &[Put][..], &[Put, Put][..]));
    all.sort_by_key(|script| format!("{script:?}"));
    all.dedup();
    assert_eq!(all.len(), 39);
}

/// What is planted, the steps that show it, and some part of what is said. The search tries all scripts over those steps, up
/// to as many as they are.
const ROWS: &[(Mutant, &[Deed], &str)] = &[
    (AckBeforeFrame, &[Put], "R1"),
    (AckBeforeFlush, &[Put], "R1"),
    (StateNotAwaited, &[Offsets], "R5"),
    (PublishedEarly, &[Put], "R1"),
    (RollNotAwaited, &[WeakRoll], "R1"),
    (LoweringNotAwaited, &[Lower], "R1"),
    (GroupOvertaken, &[Put], "R1"),
    (RingFlushesLastFile, &[Put], "R1"),
    (DurableClaimedEarly, &[Put, Roll], "R14"),
    (FrameCrcUnchecked, &[Group], "R14"),
    (FrameSplitsRequest, &[Group], "R13"),
    (ExtentBeforeFlush, &[Large], "R14"),
    (PastUnflushed, &[Weak, Group], "R14"),
    (SyncPointUnflushed, &[SyncPoint], "R14"),
    (SegmentHeaderUnflushed, &[Roll], "R14"),
    (SegmentNameUnflushed, &[Put], "R14"),
    (TopicNameUnflushed, &[Put], "R14"),
    (BuriedEarly, &[Deed::Delete], "R14"),
    (RaisedWithoutSync, &[Weak, Raise], "R1"),
    (GroupUnmarked, &[Group], "other bytes"),
    (SnapshotAheadOfSegments, &[Put, Snapshot], "R14"),
    (SnapshotNumberTooHigh, &[WeakRoll, Snapshot], "R1"),
    (SnapshotNameUnflushed, &[Weak], "R11"),
    (EpochNotBumped, &[Put], "R4"),
    (RebuildUnflushed, &[Put, Kill], "R14"),
    (WalkTakesGroups, &[Group, Weak], "R13"),
];

#[test]
fn planted_mistakes_are_found() {
    let mut wrong = Vec::new();
    for (mistake, alphabet, says) in ROWS {
        match plant(&[*mistake], || exhaustive(alphabet, alphabet.len(), 1, &|| {})) {
            Ok(count) => wrong.push(format!("{mistake:?} lives: {count:?}")),
            Err(broken) if broken.what.contains(says) => println!("{mistake:?}: {broken}"),
            Err(broken) => wrong.push(format!("{mistake:?} is found by something else: {broken}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
