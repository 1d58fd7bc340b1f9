//! Varints: protobuf's base-128 integers, least significant group first.
//!
//! [`read`] takes what any serialiser may write (up to ten bytes, padded or not), as
//! stock decoders do; what has to be canonical is read by the walk, which takes only the shortest form. Lengths
//! ([`read_length`]) have at most five bytes: more breaks some stock decoders, and none of our writers does it.

/// A varint at the start of `bytes`, any width up to ten bytes; bits beyond 64 are refused. And the bytes it took.
pub(crate) fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        if index == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

/// A length at the start of `bytes`, any width up to five bytes, and the bytes it took.
#[inline]
pub(crate) fn read_length(bytes: &[u8]) -> Option<(usize, usize)> {
    // Most lengths by far: those of small records and their parts.
    match *bytes {
        [low @ ..=0x7F, ..] => return Some((usize::from(low), 1)),
        [low, high @ ..=0x7F, ..] => return Some((usize::from(low & 0x7F) | usize::from(high) << 7, 2)),
        _ => {}
    }
    let (value, width) = read(bytes)?;
    if width > 5 {
        return None;
    }
    usize::try_from(value).ok().map(|value| (value, width))
}

/// Bytes that `value` takes in its shortest form.
pub(crate) const fn len(value: u64) -> usize {
    // ceil(bits / 7), and one byte for zero.
    ((63 - (value | 1).leading_zeros() as usize) / 7) + 1
}

/// Appends the shortest form.
pub(crate) fn put(out: &mut impl bytes::BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    #[allow(clippy::cast_possible_truncation, reason = "below 0x80")]
    out.put_u8(value as u8);
}

/// `value` in four bytes, padded: what stands in front of a stored batch. The caller keeps it below 2^28.
pub(crate) const fn padded4(value: u32) -> [u8; 4] {
    let [a, b, c, d] = [value, value >> 7, value >> 14, value >> 21];
    [(a & 0x7F) as u8 | 0x80, (b & 0x7F) as u8 | 0x80, (c & 0x7F) as u8 | 0x80, (d & 0x7F) as u8]
}

/// The value of four padded bytes, or `None` for any other form.
pub(crate) fn from_padded4([a, b, c, d]: [u8; 4]) -> Option<u32> {
    if a < 0x80 || b < 0x80 || c < 0x80 || d >= 0x80 {
        return None;
    }
    let group = |byte: u8| u32::from(byte & 0x7F);
    Some(group(a) | group(b) << 7 | group(c) << 14 | group(d) << 21)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges() {
        assert_eq!(len(0), 1);
        assert_eq!(len(127), 1);
        assert_eq!(len(128), 2);
        assert_eq!(len(u64::MAX), 10);
        assert_eq!(read(&[0x80; 11]), None);
        assert_eq!(read(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]), Some((u64::MAX, 10)));
        assert_eq!(read(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02]), None);
        assert_eq!(read_length(&[0x7F, 0xFF]), Some((127, 1)));
        assert_eq!(read_length(&[0x80, 0x01]), Some((128, 2)));
        assert_eq!(read_length(&[0xFF, 0x7F, 1]), Some((16383, 2)));
        assert_eq!((read_length(&[]), read_length(&[0x80])), (None, None));
        assert_eq!(read_length(&[0x81, 0x80, 0x80, 0x80, 0x00]), Some((1, 5)));
        assert_eq!(read_length(&[0x81, 0x80, 0x80, 0x80, 0x80, 0x00]), None);
        assert_eq!(from_padded4([0x81, 0x80, 0x80, 0x80]), None);
        assert_eq!(from_padded4([0x01, 0x80, 0x80, 0x00]), None);
    }

    proptest! {
        #[test]
        fn written_and_read(value: u64) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            prop_assert_eq!(read(&out), Some((value, out.len())));
        }

        #[test]
        fn padded(value in 0_u32..1 << 28) {
            let bytes = padded4(value);
            prop_assert_eq!(from_padded4(bytes), Some(value));
            prop_assert_eq!(read(&bytes), Some((u64::from(value), 4)));
        }
    }
}
