//! Inputs out of a corpus: seeded, so that the same number makes the same input on every machine.
//!
//! Half of the changes know protobuf: they take a field out, put one in twice, swap two, change one's tag, or go into it and
//! change what it holds, and every length around it follows. The other half knows nothing: bits, numbers, cuts, splices,
//! varints of any width.

use crate::clock::{Clock as _, ManualClock};

/// Numbers from a seed.
#[derive(Debug)]
pub(super) struct Rng(ManualClock);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(ManualClock::new(0, seed))
    }

    fn next(&mut self) -> u64 {
        self.0.random_u64()
    }

    /// A number below `bound`, which is at least 1.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    /// A place in `bytes` or at its end.
    fn place(&mut self, bytes: &[u8]) -> usize {
        self.below(bytes.len() + 1)
    }
}

/// Longest input; longer ones are cut.
const LONGEST: usize = 4096;

/// Numbers at which code goes wrong.
const NUMBERS: [u64; 20] = [
    0,
    1,
    2,
    76,
    81,
    103,
    127,
    128,
    255,
    256,
    4096,
    65_535,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x1_0000_0000,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000,
    0xFFFF_FFFF_FFFF_F000,
    u64::MAX,
];

/// A seed with a few changes. `message_at`: where protobuf begins in it.
pub(super) fn input(rng: &mut Rng, seeds: &[Vec<u8>], message_at: usize) -> Vec<u8> {
    let mut bytes = seeds[rng.below(seeds.len())].clone();
    for _ in 0..=rng.below(4) {
        if rng.below(2) == 0 && bytes.len() > message_at {
            let message = message(rng, &bytes[message_at..], 0);
            bytes.truncate(message_at);
            bytes.extend_from_slice(&message);
        } else {
            plain(rng, &mut bytes, seeds);
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

/// One change to bytes that may be anything.
fn plain(rng: &mut Rng, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = rng.place(bytes);
    match rng.below(10) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        2 if at < bytes.len() => bytes[at] = u8::try_from(rng.below(256)).unwrap(),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..(at + 1 + rng.below(8)).min(bytes.len()))),
        5 => {
            let end = (at + 1 + rng.below(40)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            let to = rng.place(bytes);
            bytes.splice(to..to, part);
        }
        6 => {
            let other = &seeds[rng.below(seeds.len())];
            let from = rng.place(other);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        7 => {
            let number = number(rng, u64::from(bytes.get(at).copied().unwrap_or(0)));
            let width = [1, 2, 4, 8][rng.below(4)];
            let mut value = number.to_le_bytes()[..width].to_vec();
            if rng.below(4) == 0 {
                value.reverse();
            }
            let end = (at + width).min(bytes.len());
            bytes.splice(at..end, value);
        }
        8 => {
            // The varint there, if it is one, becomes another, perhaps a padded one.
            let end = varint_end(bytes, at).unwrap_or(at);
            let value = read_varint(&bytes[at..end]);
            let value = varint(rng, value);
            bytes.splice(at..end, value);
        }
        _ => {
            let many = 1 + rng.below(3);
            let part: Vec<u8> = (0..many).map(|_| u8::try_from(rng.below(256)).unwrap()).collect();
            bytes.splice(at..at, part);
        }
    }
}

/// A number that is often an odd one, and sometimes near what was there.
fn number(rng: &mut Rng, was: u64) -> u64 {
    match rng.below(4) {
        0 => was.wrapping_add(rng.below(5) as u64).wrapping_sub(2),
        1 => rng.next() >> rng.below(64),
        _ => NUMBERS[rng.below(NUMBERS.len())],
    }
}

/// A varint near `was` or of an odd number; one in eight is longer than it need be.
fn varint(rng: &mut Rng, was: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, number(rng, was));
    if rng.below(8) == 0 {
        *out.last_mut().unwrap() |= 0x80;
        out.extend(std::iter::repeat_n(0x80, rng.below(6)));
        out.push(0);
    }
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn varint_end(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..)?.iter().take(10).position(|byte| *byte < 0x80)?;
    Some(at + length + 1)
}

fn read_varint(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7F))
}

/// A field: where it begins, where its content does, where it ends.
#[derive(Clone, Copy, Debug)]
struct Field {
    start: usize,
    content: usize,
    end: usize,
    wire: u8,
}

/// The fields of a message up to where it is none any more.
fn fields(bytes: &[u8]) -> Vec<Field> {
    let (mut out, mut start) = (Vec::new(), 0);
    while let Some(after_tag) = varint_end(bytes, start) {
        let wire = bytes[start] & 7;
        let (content, end) = match wire {
            0 => (after_tag, varint_end(bytes, after_tag)),
            1 => (after_tag, Some(after_tag + 8)),
            5 => (after_tag, Some(after_tag + 4)),
            2 => match varint_end(bytes, after_tag) {
                Some(content) => {
                    let length = usize::try_from(read_varint(&bytes[after_tag..content])).ok();
                    (content, length.and_then(|length| content.checked_add(length)))
                }
                None => return out,
            },
            _ => return out,
        };
        let Some(end) = end.filter(|end| *end <= bytes.len()) else { return out };
        out.push(Field { start, content, end, wire });
        start = end;
    }
    out
}

/// The message with one change at any depth; lengths on the way there follow.
fn message(rng: &mut Rng, bytes: &[u8], depth: u32) -> Vec<u8> {
    let all = fields(bytes);
    let mut out = bytes.to_vec();
    if all.is_empty() || depth > 5 {
        let seeds = [bytes.to_vec()];
        plain(rng, &mut out, &seeds);
        return out;
    }
    let field = all[rng.below(all.len())];
    let other = all[rng.below(all.len())];
    let part = bytes[field.start..field.end].to_vec();
    match rng.below(12) {
        0 => drop(out.drain(field.start..field.end)),
        1 => drop(out.splice(other.start..other.start, part)),
        2 => drop(out.splice(other.start..other.end, part)),
        3 => {
            let was = read_varint(&bytes[field.start..varint_end(bytes, field.start).unwrap()]);
            let tag = match rng.below(3) {
                0 => varint(rng, was),
                1 => vec![u8::try_from(rng.below(16) << 3).unwrap() | field.wire],
                _ => vec![u8::try_from(was >> 3 << 3 & 0x78).unwrap() | [0, 1, 2, 3, 4, 5][rng.below(6)]],
            };
            out.splice(field.start..varint_end(bytes, field.start).unwrap(), tag);
        }
        _ => {
            let content = &bytes[field.content..field.end];
            let content = match field.wire {
                0 => varint(rng, read_varint(content)),
                2 => message(rng, content, depth + 1),
                _ => {
                    let was = content.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
                    number(rng, was).to_le_bytes()[..content.len()].to_vec()
                }
            };
            let mut whole = Vec::with_capacity(content.len() + 10);
            if field.wire == 2 {
                put_varint(&mut whole, content.len() as u64);
            }
            whole.extend_from_slice(&content);
            let after_tag = varint_end(bytes, field.start).unwrap();
            out.splice(after_tag..field.end, whole);
        }
    }
    out
}
