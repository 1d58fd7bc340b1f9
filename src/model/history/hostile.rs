//! Records of somebody who knows how the files look.

use annals_wire::{
    header::{Attributes, BatchHeader},
    v1,
};
use prost::Message;

use crate::storage::Partition;

/// From a position on, what would be empty frames far ahead in the chain, if frames began with the number 1.
pub(super) fn fill_with_frames(value: &mut [u8], from: usize) {
    let mut frame: Vec<u8> = Vec::with_capacity(64);
    frame.extend(1_u64.to_le_bytes());
    frame.extend(64_u32.to_le_bytes());
    frame.extend(1_u16.to_le_bytes());
    frame.extend([0; 2 + 4 + 4]);
    frame.extend((1_u64 << 40).to_le_bytes());
    frame.extend(((1_u64 << 40) - 1).to_le_bytes());
    frame.extend([0; 8 + 4 + 4 + 4]);
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    let places = value.iter_mut().skip(from);
    places.zip(frame.iter().cycle()).for_each(|(to, from)| *to = *from);
}

fn payload(value: &[u8]) -> Vec<u8> {
    let record = v1::Record { value: Some(value.to_vec().into()), ..Default::default() };
    v1::RecordBatch { records: vec![record], ..Default::default() }.encode_to_vec()
}

/// A batch of an epoch that never was, where the one behind a batch of the record as it is would begin.
pub(super) fn add_a_batch(value: &mut Vec<u8>, partition: &Partition) {
    let inner = payload(b"never appended");
    let header = BatchHeader {
        base_offset: partition.bounds().log_end + 1,
        leader_epoch: u32::MAX,
        record_count: 1,
        attributes: Attributes(0),
        records_crc32: crc32fast::hash(&inner),
        ..BatchHeader::default()
    };
    let key = partition.key();
    let mut inside = header.encode(inner.len(), &key.topic, key.partition).to_vec();
    inside.extend(inner);
    // The longer record has more in front of it.
    let short = payload(value).len();
    let long = vec![0; value.len() + inside.len()];
    let ahead = payload(&long).len() - long.len();
    value.truncate(short - ahead);
    value.extend(inside);
}
