//! Appends as the broker makes them: room first, then locks, room ahead where there is none.

use annals_wire::{header::Attributes, v1};
use bytes::Bytes;
use prost::Message;

use crate::{
    storage::{Append, AppendError, Appended, Class, Mode, Partition, Receipt, Storage},
    sync::Arc,
};

pub(super) fn payload(value: &[u8]) -> Bytes {
    let record = v1::Record { value: Some(Bytes::copy_from_slice(value)), ..Default::default() };
    Bytes::from(v1::RecordBatch { records: vec![record], ..Default::default() }.encode_to_vec())
}

pub(super) fn part<'a>(partition: &'a Arc<Partition>, payload: &'a [Bytes; 1]) -> Append<'a> {
    let [bytes] = payload;
    Append {
        partition,
        payload,
        payload_len: bytes.len(),
        record_count: 1,
        max_timestamp_ms: 0,
        timestamps_missing: true,
        records_crc32: crc32fast::hash(bytes),
        attributes: Attributes(0),
        expected_next_offset: None,
    }
}

/// Appends as a broker does: room first, then locks, preparing where that is needed. `None` = refused.
pub(super) fn try_append(
    storage: &Arc<Storage>,
    appends: &[Append<'_>],
    mode: Mode,
    state: Option<u64>,
) -> Option<Receipt> {
    for _ in 0..8 {
        let bytes = appends.iter().map(|append| append.payload_len as u64 + 512).sum::<u64>() + 8192;
        let room = storage.reserve(bytes, Class::Data).ok()?;
        let mut entries = |_: &[Appended]| state.iter().map(|state| state.to_le_bytes().to_vec()).collect();
        match storage.append(room, appends, mode, &mut entries) {
            Err(AppendError::NotPrepared { batch }) => {
                let append = appends.get(batch)?;
                storage.prepare(append.partition, append.payload_len as u64 + 81).ok()?;
            }
            other => return other.ok(),
        }
    }
    None
}
