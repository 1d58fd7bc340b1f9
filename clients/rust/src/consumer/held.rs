//! What a member holds: a pure value, told of everything that moves a partition.
//!
//! A revoked partition can be released once everything of it that the application was handed is committed.

use std::collections::BTreeMap;

use annals_wire::v1;

/// A partition by name.
pub(super) type Place = (String, u32);

/// A partition that is the member's.
#[derive(Clone, Copy, Debug)]
struct Tenure {
    epoch: u32,
    /// Behind the last record that the application was handed.
    handed: i64,
    committed: i64,
    revoked: bool,
}

impl Tenure {
    fn may_go(&self) -> bool {
        self.revoked && self.committed >= self.handed
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Held {
    partitions: BTreeMap<Place, Tenure>,
}

impl Held {
    pub(super) fn assigned(&mut self, given: &[v1::AssignedPartition]) {
        for one in given {
            let (handed, committed) = (one.next_offset, one.next_offset);
            let tenure = Tenure { epoch: one.assignment_epoch, handed, committed, revoked: false };
            self.partitions.insert((one.topic.clone(), one.partition), tenure);
        }
    }

    /// Partitions are asked back; those that can go at once.
    pub(super) fn revoked(&mut self, places: &[Place]) -> Vec<Place> {
        let mut gone = Vec::new();
        for place in places {
            if let Some(tenure) = self.partitions.get_mut(place) {
                tenure.revoked = true;
                gone.extend(tenure.may_go().then(|| place.clone()));
            }
        }
        self.lost(&gone);
        gone
    }

    /// Partitions are somebody else's.
    pub(super) fn lost(&mut self, places: &[Place]) {
        for place in places {
            self.partitions.remove(place);
        }
    }

    /// Everything is somebody else's, or will be given anew.
    pub(super) fn lost_all(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.partitions).into_keys().collect()
    }

    /// Epoch under which a partition is held.
    pub(super) fn epoch(&self, place: &Place) -> Option<u32> {
        self.partitions.get(place).map(|tenure| tenure.epoch)
    }

    /// The application is handed records up to here. False = it must not be: they are not the member's any more.
    pub(super) fn hand(&mut self, place: &Place, epoch: u32, next_offset: i64) -> bool {
        let Some(tenure) = self.partitions.get_mut(place) else { return false };
        let may = tenure.epoch == epoch && !tenure.revoked;
        if may {
            tenure.handed = tenure.handed.max(next_offset);
        }
        may
    }

    /// Positions are stored; the partitions that can be released now.
    pub(super) fn committed(&mut self, positions: &[v1::CommitPosition]) -> Vec<Place> {
        let mut gone = Vec::new();
        for position in positions {
            let place = (position.topic.clone(), position.partition);
            let Some(tenure) = self.partitions.get_mut(&place) else { continue };
            if tenure.epoch == position.assignment_epoch {
                tenure.committed = tenure.committed.max(position.next_offset);
                gone.extend(tenure.may_go().then_some(place));
            }
        }
        self.lost(&gone);
        gone
    }

    /// The application is done with revoked partitions, whatever of them is committed.
    pub(super) fn let_go(&mut self) -> Vec<Place> {
        let revoked = self.partitions.iter().filter(|(_, tenure)| tenure.revoked);
        let gone: Vec<Place> = revoked.map(|(place, _)| place.clone()).collect();
        self.lost(&gone);
        gone
    }

    /// All that is held and not asked back.
    pub(super) fn places(&self) -> Vec<Place> {
        let held = self.partitions.iter().filter(|(_, tenure)| !tenure.revoked);
        held.map(|(place, _)| place.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(partition: u32, next_offset: i64, assignment_epoch: u32) -> v1::AssignedPartition {
        v1::AssignedPartition {
            topic: "t".into(),
            partition,
            next_offset,
            assignment_epoch,
            ..Default::default()
        }
    }

    fn place(partition: u32) -> Place {
        ("t".into(), partition)
    }

    fn position(partition: u32, next_offset: i64, assignment_epoch: u32) -> v1::CommitPosition {
        let topic = "t".into();
        v1::CommitPosition { topic, partition, next_offset, assignment_epoch, ..Default::default() }
    }

    #[test]
    fn a_revoked_partition_goes_with_the_commit_of_what_was_handed_out() {
        let mut held = Held::default();
        held.assigned(&[given(0, 5, 1), given(1, 0, 2)]);
        assert!(held.hand(&place(0), 1, 9));
        assert!(!held.hand(&place(0), 7, 11), "of another tenure");
        assert_eq!(held.revoked(&[place(0), place(1), place(9)]), [place(1)], "nothing of it was handed out");
        assert!(!held.hand(&place(0), 1, 12), "asked back");
        assert!(held.committed(&[position(0, 8, 1)]).is_empty());
        assert!(held.committed(&[position(0, 9, 3)]).is_empty(), "another epoch's");
        assert_eq!(held.committed(&[position(0, 9, 1)]), [place(0)]);
        assert_eq!(held.epoch(&place(0)), None);
    }

    #[test]
    fn what_is_let_go_needs_no_commit_and_what_is_lost_is_lost() {
        let mut held = Held::default();
        held.assigned(&[given(0, 0, 1), given(1, 0, 2), given(2, 0, 3)]);
        assert!(held.hand(&place(0), 1, 9) && held.hand(&place(1), 2, 9));
        assert!(held.revoked(&[place(0)]).is_empty());
        assert_eq!(held.places(), [place(1), place(2)]);
        assert_eq!(held.let_go(), [place(0)]);
        held.lost(&[place(1)]);
        assert_eq!(held.lost_all(), [place(2)]);
    }
}
