//! The check of one record, over any [`Source`].

use super::source::Source;
use super::{Origin, Reason, Walked};
use crate::limits::{MAX_HEADER_NAME_BYTES, RESERVED_HEADER_PREFIX};
use crate::murmur2::Murmur2;

/// What the records seen so far add up to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    max_timestamp_ms: i64,
    timestamps_missing: bool,
    keyed: u32,
    deltas: u32,
    last_delta: u32,
}

impl Tally {
    pub(super) fn finish(self, record_count: u32, bytes: u64, crc32: u32) -> Walked {
        Walked {
            record_count,
            bytes,
            max_timestamp_ms: self.max_timestamp_ms,
            timestamps_missing: self.timestamps_missing,
            keyed: self.keyed,
            deltas: self.deltas,
            last_delta: self.last_delta,
            crc32,
        }
    }

    fn delta(&mut self, delta: u32) -> Result<(), Reason> {
        if self.deltas != 0 && delta <= self.last_delta {
            return Err(Reason::DeltaOrder);
        }
        self.deltas += 1;
        self.last_delta = delta;
        Ok(())
    }
}

/// A record that passed.
pub(super) struct Checked {
    /// murmur2 of its key, if that was asked for and there is one.
    pub(super) key_hash: Option<u32>,
    /// 0 if it has none.
    pub(super) timestamp_ms: i64,
}

const KEY: u8 = 0x0A;
const VALUE: u8 = 0x12;
const HEADERS: u8 = 0x1A;
const TIMESTAMP: u8 = 0x20;
const OFFSET_DELTA: u8 = 0x28;
const DELIVER_AT: u8 = 0x30;
const EXPIRES_AT: u8 = 0x38;
const HEADER_NAME: u8 = 0x0A;
const HEADER_VALUE: u8 = 0x12;

/// Checks the body of a record, to its end.
#[inline]
pub(super) fn check_record<S: Source, const HASH: bool>(
    source: &mut S,
    origin: Origin,
    tally: &mut Tally,
) -> Result<Checked, Reason> {
    let mut before = 0_u8;
    let mut timestamp_ms = 0;
    let mut key_hash = None;
    while let Some(tag) = source.byte() {
        if tag <= before {
            ascending(tag, before)?;
        }
        before = tag;
        match tag {
            KEY => {
                let len = length(source)?;
                key_hash = key::<S, HASH>(source, len)?;
                tally.keyed += 1;
            }
            VALUE => {
                let len = length(source)?;
                source.skip(len).ok_or(Reason::Truncated)?;
            }
            HEADERS => header(source, origin)?,
            TIMESTAMP => {
                timestamp_ms = time(source)?;
            }
            OFFSET_DELTA if origin == Origin::Stored => {
                let delta = u32::try_from(minimal_varint(source)?).map_err(|_| Reason::Overflow)?;
                tally.delta(delta)?;
            }
            DELIVER_AT | EXPIRES_AT if origin == Origin::Stored => {
                time(source)?;
            }
            other => return Err(refused(other)),
        }
    }
    tally.max_timestamp_ms = tally.max_timestamp_ms.max(timestamp_ms);
    tally.timestamps_missing |= timestamp_ms == 0;
    Ok(Checked { key_hash, timestamp_ms })
}

/// A tag that is not above the one before it: fine for headers alone.
#[cold]
fn ascending(tag: u8, before: u8) -> Result<(), Reason> {
    if tag != before {
        // An unknown tag says more than its place does.
        return Err(if known(tag) { Reason::Order } else { refused(tag) });
    }
    if tag == HEADERS { Ok(()) } else { Err(Reason::Repeated) }
}

fn known(tag: u8) -> bool {
    matches!(tag, KEY | VALUE | HEADERS | TIMESTAMP | OFFSET_DELTA | DELIVER_AT | EXPIRES_AT)
}

#[cold]
fn refused(tag: u8) -> Reason {
    match tag {
        OFFSET_DELTA => Reason::OffsetDelta,
        DELIVER_AT | EXPIRES_AT => Reason::NotServed,
        _ if tag < 0x80 && matches!(tag >> 3, 1..=7) => Reason::WireType,
        _ => Reason::UnknownField,
    }
}

#[inline]
fn key<S: Source, const HASH: bool>(source: &mut S, len: usize) -> Result<Option<u32>, Reason> {
    if !HASH {
        source.skip(len).ok_or(Reason::Truncated)?;
        return Ok(None);
    }
    let mut hasher = Murmur2::new(len);
    source.pieces(len, |piece| hasher.update(piece)).ok_or(Reason::Truncated)?;
    Ok(Some(hasher.finish()))
}

/// A header: its name, then perhaps its value, then its end.
#[inline]
fn header<S: Source>(source: &mut S, origin: Origin) -> Result<(), Reason> {
    let len = length(source)?;
    let end = source.left() - len;
    if len == 0 {
        return Err(Reason::HeaderUnnamed);
    }
    match source.byte() {
        Some(HEADER_NAME) => {}
        Some(HEADER_VALUE) => return Err(Reason::HeaderUnnamed),
        _ => return Err(Reason::UnknownField),
    }
    let name = within(source, end)?;
    if name == 0 {
        return Err(Reason::HeaderUnnamed);
    }
    if name > MAX_HEADER_NAME_BYTES {
        return Err(Reason::HeaderNameLong(name as u64));
    }
    source.name(name, |name| header_name(name, origin)).ok_or(Reason::Truncated)??;
    if source.left() == end {
        return Ok(());
    }
    match source.byte() {
        Some(HEADER_VALUE) => {}
        Some(HEADER_NAME) => return Err(Reason::Repeated),
        _ => return Err(Reason::UnknownField),
    }
    let value = within(source, end)?;
    source.skip(value).ok_or(Reason::Truncated)?;
    match source.left() {
        left if left == end => Ok(()),
        _ => Err(match source.byte() {
            Some(HEADER_VALUE) => Reason::Repeated,
            Some(HEADER_NAME) => Reason::Order,
            _ => Reason::UnknownField,
        }),
    }
}

#[inline]
fn header_name(name: &[u8], origin: Origin) -> Result<(), Reason> {
    if origin == Origin::Client && name.starts_with(RESERVED_HEADER_PREFIX.as_bytes()) {
        return Err(Reason::HeaderReserved);
    }
    std::str::from_utf8(name).map(|_| ()).map_err(|_| Reason::HeaderNameUtf8)
}

/// A length that stays within the record.
#[inline]
fn length<S: Source>(source: &mut S) -> Result<usize, Reason> {
    within(source, 0)
}

/// A length after which at least `end` bytes of the record are left: those behind the header it belongs to.
#[inline]
fn within<S: Source>(source: &mut S, end: usize) -> Result<usize, Reason> {
    let len = usize::try_from(minimal_varint(source)?).map_err(|_| Reason::Truncated)?;
    match source.left().checked_sub(len) {
        Some(left) if left >= end => Ok(len),
        _ => Err(Reason::Truncated),
    }
}

/// A time that is not negative.
#[inline]
fn time<S: Source>(source: &mut S) -> Result<i64, Reason> {
    i64::try_from(minimal_varint(source)?).map_err(|_| Reason::NegativeTime)
}

/// A varint in its shortest form.
#[inline]
pub(super) fn minimal_varint<S: Source>(source: &mut S) -> Result<u64, Reason> {
    let first = source.byte().ok_or(Reason::Truncated)?;
    if first < 0x80 {
        return Ok(u64::from(first));
    }
    let mut value = u64::from(first & 0x7F);
    for shift in (7..=63).step_by(7) {
        let byte = source.byte().ok_or(Reason::Truncated)?;
        if shift == 63 && byte > 1 {
            return Err(Reason::Overflow);
        }
        value |= u64::from(byte & 0x7F) << shift;
        match byte {
            0 => return Err(Reason::Padded),
            1..=0x7F => return Ok(value),
            _ => {}
        }
    }
    Err(Reason::Overflow)
}
