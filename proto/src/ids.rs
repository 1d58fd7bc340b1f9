//! Ids. A topic has a name at the edge and an id everywhere inside: files, journal, checksums.

use std::fmt;

/// UUID of a topic. A topic made anew under an old name has another one, so old positions never apply to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// Bytes of an id.
    pub const LEN: usize = 16;

    /// The id in `bytes`, if there are exactly 16.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes, as they stand in every message.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id written as `8-4-4-4-12` hex digits, upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let lengths: [usize; 5] = [8, 4, 4, 4, 12];
        let mut groups = text.split('-');
        let mut value = 0_u128;
        for length in lengths {
            let group = groups.next().filter(|group| group.len() == length)?;
            for digit in group.chars() {
                value = value << 4 | u128::from(digit.to_digit(16)?);
            }
        }
        groups.next().is_none().then_some(Self(value.to_be_bytes()))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let id = TopicId(std::array::from_fn(|i| u8::try_from(i * 17).unwrap()));
        assert_eq!(id.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        assert_eq!(TopicId::parse("00112233-4455-6677-8899-AABBCCDDEEFF"), Some(id));
        for bad in [
            "",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeeff-",
            "x",
            "+0112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(TopicId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn slices_of_sixteen_only() {
        assert_eq!(TopicId::from_slice(&[7; 16]), Some(TopicId([7; 16])));
        assert_eq!(TopicId::from_slice(&[7; 15]), None);
        assert_eq!(TopicId::from_slice(&[7; 17]), None);
    }
}
