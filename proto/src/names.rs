//! Names of topics and groups.
//!
//! A name is 1..=249 bytes of `A-Z a-z 0-9 . _ -`, not `.` or `..`, and does not begin with `__`. Names are compared byte
//! by byte, and never become paths: files carry ids.

use crate::limits::{MAX_NAME_BYTES, RESERVED_NAME_PREFIX};

/// What is wrong with a name; the text goes to people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No name.
    #[error("the name is empty")]
    Empty,
    /// Too long.
    #[error("the name has {len} bytes, at most {MAX_NAME_BYTES} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A character outside `A-Z a-z 0-9 . _ -`.
    #[error("{found:?} at byte {at} is not one of A-Z a-z 0-9 . _ -")]
    Character {
        /// The character.
        found: char,
        /// Where it begins.
        at: usize,
    },
    /// `.` or `..`.
    #[error("\".\" and \"..\" are not names")]
    Dots,
    /// Begins with `__`.
    #[error("names beginning with {RESERVED_NAME_PREFIX:?} are reserved")]
    Reserved,
}

/// Checks the name of a topic.
///
/// # Errors
/// What is wrong with it.
pub fn check_topic_name(name: &str) -> Result<(), NameError> {
    check(name)
}

/// Checks the name of a group.
///
/// # Errors
/// What is wrong with it.
pub fn check_group_name(name: &str) -> Result<(), NameError> {
    check(name)
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { len: name.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some((at, found)) = name.char_indices().find(|&(_, c)| !allowed(c)) {
        return Err(NameError::Character { found, at });
    }
    if name == "." || name == ".." {
        return Err(NameError::Dots);
    }
    if name.starts_with(RESERVED_NAME_PREFIX) {
        return Err(NameError::Reserved);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_pass() {
        for name in ["a", "orders", "Orders.v2_EU-1", "...", "_x", "0", &"x".repeat(249)] {
            assert_eq!(check_topic_name(name), Ok(()), "{name}");
            assert_eq!(check_group_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn bad_names_say_why() {
        let cases = [
            ("", "the name is empty"),
            (".", "\".\" and \"..\" are not names"),
            ("..", "\".\" and \"..\" are not names"),
            ("__x", "names beginning with \"__\" are reserved"),
            ("a b", "' ' at byte 1 is not one of A-Z a-z 0-9 . _ -"),
            ("a/../b", "'/' at byte 1 is not one of A-Z a-z 0-9 . _ -"),
            ("best\u{e9}", "'\u{e9}' at byte 4 is not one of A-Z a-z 0-9 . _ -"),
            ("nul\0", "'\\0' at byte 3 is not one of A-Z a-z 0-9 . _ -"),
        ];
        for (name, want) in cases {
            assert_eq!(check_topic_name(name).unwrap_err().to_string(), want);
        }
        let long = "x".repeat(250);
        assert_eq!(check_group_name(&long), Err(NameError::TooLong { len: 250 }));
    }
}
