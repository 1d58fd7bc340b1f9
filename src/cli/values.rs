//! Values that several commands take.

use annals_client::v1::Durability;
use clap::ValueEnum;

/// What an ack means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// In the page cache: a power cut may take it
    Os,
    /// In the page cache, flushed every so often: a power cut may take that window
    Interval,
    /// On disk: nothing acked is lost
    Fsync,
}

impl From<Level> for Durability {
    fn from(level: Level) -> Self {
        match level {
            Level::Os => Self::Os,
            Level::Interval => Self::Interval,
            Level::Fsync => Self::Fsync,
        }
    }
}

/// The word for a level.
pub(crate) fn level_name(level: Durability) -> &'static str {
    match level {
        Durability::Unspecified => "unspecified",
        Durability::Os => "os",
        Durability::Interval => "interval",
        Durability::Fsync => "fsync",
    }
}

/// A size such as `1048576`, `64KiB` or `1M`; all units are powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no size such as 1048576, 64KiB or 1M");
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end).ok_or_else(wrong)?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, want) in
            [("0", 0), ("17", 17), ("2k", 2048), ("64KiB", 65_536), ("1MB", 1 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "k", "1.5M", "-1", "1T", "99999999999999G"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
