//! Who a producer is to the server, and which sequence its next record has in each partition.
//!
//! A batch gets its sequence when it leaves for the first time and keeps it however often it is sent. So what may be stored is
//! known again, as long as no more batches of a partition are in flight than the server's window holds.

use annals_wire::v1;

/// Batches of a partition in flight without sequences: as many as there are.
const ANY: usize = usize::MAX;

/// Who the producer is.
#[derive(Debug, Default)]
pub(super) enum Identity {
    /// Nobody: the server would not know, or is not to know.
    #[default]
    None,
    /// To be asked for before anything is sent.
    Wanted,
    /// Given by the server.
    Held(Held),
}

#[derive(Debug)]
pub(super) struct Held {
    producer_id: i64,
    producer_epoch: u32,
    window: usize,
    /// By partition.
    lanes: Vec<Lane>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    next_sequence: u32,
    in_flight: usize,
}

impl Identity {
    /// What the server gave.
    pub(super) fn of(opened: &v1::OpenProducerResponse) -> Self {
        let (producer_id, producer_epoch) = (opened.producer_id, opened.producer_epoch);
        let window = (opened.window_batches as usize).max(1);
        Self::Held(Held { producer_id, producer_epoch, window, lanes: Vec::new() })
    }

    pub(super) fn is_wanted(&self) -> bool {
        matches!(self, Self::Wanted)
    }

    /// Whether a batch for this partition may leave now.
    pub(super) fn has_room(&self, partition: Option<u32>) -> bool {
        let Self::Held(held) = self else { return true };
        let lane = partition.and_then(|partition| held.lanes.get(partition as usize));
        lane.is_none_or(|lane| lane.in_flight < held.window)
    }

    /// How many batches of a partition may be on their way.
    pub(super) fn window(&self) -> usize {
        if let Self::Held(held) = self { held.window } else { ANY }
    }

    /// A batch leaves; `given`: it has its sequence already. `None`: it goes without.
    pub(super) fn leaves(
        &mut self,
        partition: Option<u32>,
        records: u32,
        given: Option<v1::ProducerSequence>,
    ) -> Option<v1::ProducerSequence> {
        let (Self::Held(held), Some(partition)) = (self, partition) else { return None };
        let (producer_id, producer_epoch) = (held.producer_id, held.producer_epoch);
        let lane = held.lane(partition);
        lane.in_flight += 1;
        given.or_else(|| {
            let base_sequence = lane.next_sequence;
            lane.next_sequence = base_sequence.wrapping_add(records);
            Some(v1::ProducerSequence { producer_id, producer_epoch, base_sequence })
        })
    }

    /// A batch that left is answered, or taken back.
    pub(super) fn is_back(&mut self, partition: Option<u32>) {
        if let (Self::Held(held), Some(partition)) = (self, partition) {
            let lane = held.lane(partition);
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
    }

    /// The next record of the partition has this sequence.
    pub(super) fn go_on_at(&mut self, partition: u32, next_sequence: u32) {
        if let Self::Held(held) = self {
            held.lane(partition).next_sequence = next_sequence;
        }
    }
}

impl Held {
    fn lane(&mut self, partition: u32) -> &mut Lane {
        let index = partition as usize;
        if self.lanes.len() <= index {
            self.lanes.resize(index + 1, Lane::default());
        }
        self.lanes.get_mut(index).expect("room was made for it")
    }
}
