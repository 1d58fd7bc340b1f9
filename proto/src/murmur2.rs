//! Which partition a key belongs to: murmur2 as Kafka's default partitioner has it, so that a key lands on the same number
//! whichever of the two a service uses.
//!
//! `partition = (murmur2(key) & 0x7fff_ffff) % partitions`. The hash reads little-endian words of four bytes, then the up to
//! three bytes left. [`Murmur2`] takes the key in pieces, because a key may lie across two network frames.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// Kafka's murmur2 of a whole key.
pub fn murmur2(key: &[u8]) -> u32 {
    let mut hasher = Murmur2::new(key.len());
    hasher.update(key);
    hasher.finish()
}

/// The partition of a key, among `partitions` of them (0 counts as 1).
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    partition_of_hash(murmur2(key), partitions)
}

/// The partition of a key of which the hash is known, among `partitions` of them (0 counts as 1).
pub fn partition_of_hash(hash: u32, partitions: u32) -> u32 {
    (hash & 0x7fff_ffff) % partitions.max(1)
}

/// The hash of a key that comes in pieces.
#[derive(Debug, Clone)]
pub struct Murmur2 {
    hash: u32,
    /// Bytes that do not fill a word yet, in the low end.
    rest: u32,
    rest_len: u32,
}

impl Murmur2 {
    /// Begins a key of `len` bytes (its low 32 bits count).
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the length is mixed in modulo 2^32, as Kafka's int is"
    )]
    pub fn new(len: usize) -> Self {
        Self { hash: SEED ^ len as u32, rest: 0, rest_len: 0 }
    }

    /// Takes the next piece.
    pub fn update(&mut self, mut piece: &[u8]) {
        while self.rest_len != 0 {
            let Some((&byte, left)) = piece.split_first() else { return };
            piece = left;
            self.byte(byte);
        }
        let (words, tail) = piece.as_chunks::<4>();
        for word in words {
            self.word(u32::from_le_bytes(*word));
        }
        for &byte in tail {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        self.rest |= u32::from(byte) << (8 * self.rest_len);
        self.rest_len += 1;
        if self.rest_len == 4 {
            self.word(self.rest);
            self.rest = 0;
            self.rest_len = 0;
        }
    }

    fn word(&mut self, word: u32) {
        let mut k = word.wrapping_mul(M);
        k ^= k >> 24;
        self.hash = self.hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }

    /// The hash of what was taken.
    pub fn finish(self) -> u32 {
        let mut hash = self.hash;
        if self.rest_len != 0 {
            hash = (hash ^ self.rest).wrapping_mul(M);
        }
        hash ^= hash >> 13;
        hash = hash.wrapping_mul(M);
        hash ^ hash >> 15
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The vectors of Kafka's own test of its hash.
    #[test]
    fn kafka_vectors() {
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, want) in vectors {
            assert_eq!(murmur2(key).cast_signed(), want, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn partitions() {
        assert_eq!(partition_of(b"21", 1), 0);
        assert_eq!(partition_of(b"21", 0), 0);
        assert_eq!(partition_of(b"foobar", 7), ((-790_332_482_i32).cast_unsigned() & 0x7fff_ffff) % 7);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(key: Vec<u8>, cuts in proptest::collection::vec(0_usize..64, 0..6)) {
            let mut hasher = Murmur2::new(key.len());
            let mut rest = key.as_slice();
            for cut in cuts {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                hasher.update(piece);
                rest = left;
            }
            hasher.update(rest);
            prop_assert_eq!(hasher.finish(), murmur2(&key));
        }
    }
}
