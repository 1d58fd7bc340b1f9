//! What is written: every byte of an event follows from who wrote it and which one it is, so that checking needs counters
//! and no copies.
//!
//! | at | bytes | what (little endian) |
//! |---|---|---|
//! | 0 | 8 | `crashtst` |
//! | 8 | 8 | run |
//! | 16 | 4 | producer |
//! | 20 | 4 | partition |
//! | 24 | 8 | sequence: which event of this producer in this partition |
//! | 32 | 4 | life: which start of the broker it was sent to |
//! | 36 | … | drawn from all of the above; how many, from all but the life |

use bytes::{BufMut as _, BytesMut};

const MAGIC: [u8; 8] = *b"crashtst";
const HEAD: usize = 36;
/// Largest event.
const LARGEST: u64 = 200 * 1024;

/// Which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) run: u64,
    pub(super) producer: u32,
    pub(super) partition: u32,
    pub(super) sequence: u64,
    pub(super) life: u32,
}

impl Event {
    /// Its bytes, in place of what `out` holds.
    pub(super) fn write(&self, out: &mut BytesMut) {
        out.clear();
        out.put_slice(&MAGIC);
        out.put_u64_le(self.run);
        out.put_u32_le(self.producer);
        out.put_u32_le(self.partition);
        out.put_u64_le(self.sequence);
        out.put_u32_le(self.life);
        let mut state = mix(self.seed() ^ u64::from(self.life));
        let until = HEAD + self.size();
        while out.len() < until {
            state = mix(state);
            let bytes = state.to_le_bytes();
            out.put_slice(bytes.get(..(until - out.len()).min(8)).unwrap_or(&bytes));
        }
    }

    /// The event these bytes are, if every one of them is right. `scratch` is overwritten.
    pub(super) fn read(bytes: &[u8], scratch: &mut BytesMut) -> Option<Self> {
        let mut at = bytes.strip_prefix(&MAGIC)?;
        let mut u64 = || take(&mut at).map(u64::from_le_bytes);
        let run = u64()?;
        let mut u32 = || take(&mut at).map(u32::from_le_bytes);
        let (producer, partition) = (u32()?, u32()?);
        let sequence = take(&mut at).map(u64::from_le_bytes)?;
        let life = take(&mut at).map(u32::from_le_bytes)?;
        let event = Self { run, producer, partition, sequence, life };
        event.write(scratch);
        (scratch[..] == *bytes).then_some(event)
    }

    fn seed(&self) -> u64 {
        let place = u64::from(self.producer) << 32 | u64::from(self.partition);
        mix(mix(self.run ^ place) ^ self.sequence)
    }

    /// Mostly small, now and then large enough that a batch does not go through the journal.
    fn size(&self) -> usize {
        let drawn = self.seed();
        let most = match drawn % 512 {
            0 => LARGEST,
            1..=16 => 8 * 1024,
            17..=128 => 1024,
            _ => 200,
        };
        usize::try_from((drawn >> 16) % most).unwrap_or(0)
    }
}

fn take<const N: usize>(at: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = at.split_first_chunk()?;
    *at = rest;
    Some(*head)
}

/// SplitMix64's step: every bit of the result hangs on every bit of the argument.
pub(super) fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_back_and_no_other_bytes_are_one() {
        let (mut bytes, mut scratch) = (BytesMut::new(), BytesMut::new());
        let mut largest = 0;
        for sequence in 0..3000 {
            let event = Event { run: 7, producer: 3, partition: 1, sequence, life: 9 };
            event.write(&mut bytes);
            assert_eq!(Event::read(&bytes, &mut scratch), Some(event));
            largest = largest.max(bytes.len());
            for at in [8, 17, 25, 33, bytes.len() - 1] {
                let mut bad = bytes.to_vec();
                bad[at] ^= 1;
                assert_ne!(Event::read(&bad, &mut scratch), Some(event), "byte {at}");
            }
            assert_eq!(Event::read(&bytes[..bytes.len() - 1], &mut scratch), None);
        }
        assert!(largest > 64 * 1024, "some are large: {largest}");
    }
}
