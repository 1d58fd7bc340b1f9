//! POSITION: where to read, one grammar for every command that asks for it.
//!
//! ```text
//! POSITION   start | end | 42 | -10 | +5 | @-1h | @2026-11-01T00:00Z
//! RANGE      POSITION..POSITION
//! ```
//!
//! | written | means, in each partition |
//! |---|---|
//! | `start`, `end` | the first offset kept; the high watermark |
//! | `42` | this offset |
//! | `-10` | ten records before the high watermark |
//! | `+5` | five offsets after where the group stands |
//! | `@-1h` | the first record not older than an hour; units of `w d h m s ms`, together as `1h30m` |
//! | `@2026-11-01T00:00Z` | the first record at or after this time; a zone is required, so that no two machines read it differently |
//!
//! Pure: the clock is an argument, and nothing here asks a server.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp};

/// A place in a partition, as a person writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// First offset kept.
    Start,
    /// High watermark.
    End,
    /// This offset.
    Offset(i64),
    /// So many records before the high watermark.
    BeforeEnd(u32),
    /// So many offsets after where the group stands.
    AfterGroup(u32),
    /// So many milliseconds ago.
    Ago(i64),
    /// At this time, milliseconds since 1970.
    Time(i64),
}

/// From a position up to, not including, another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// First.
    pub(crate) from: Position,
    /// First that is not in it.
    pub(crate) to: Position,
}

/// The grammar in one line, for messages and help.
pub(crate) const GRAMMAR: &str = "start, end, 42, -10, +5, @-1h, @2026-11-01T00:00Z";

/// What is wrong with a position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadPosition {
    why: String,
}

impl fmt::Display for BadPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; a position is one of {GRAMMAR}", self.why)
    }
}

impl std::error::Error for BadPosition {}

fn bad(why: impl Into<String>) -> BadPosition {
    BadPosition { why: why.into() }
}

impl Position {
    /// The time it names, milliseconds since 1970, if it names one.
    pub(crate) fn timestamp_ms(self, now_ms: i64) -> Option<i64> {
        match self {
            Self::Ago(ms) => Some(now_ms.saturating_sub(ms).max(0)),
            Self::Time(ms) => Some(ms),
            _ => None,
        }
    }
}

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        match text {
            "start" => return Ok(Self::Start),
            "end" => return Ok(Self::End),
            "" => return Err(bad("nothing is written")),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return parse_time(time);
        }
        if let Some(digits) = text.strip_prefix('-') {
            return Ok(Self::BeforeEnd(count(text, digits)?));
        }
        if let Some(digits) = text.strip_prefix('+') {
            return Ok(Self::AfterGroup(count(text, digits)?));
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad(format!("\"{text}\" is none")));
        }
        text.parse().map(Self::Offset).map_err(|_| bad(format!("{text} is larger than any offset")))
    }
}

fn count(text: &str, digits: &str) -> Result<u32, BadPosition> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad(format!("\"{text}\" has no plain number after its sign")));
    }
    digits.parse().map_err(|_| bad(format!("{text} is more than {}", u32::MAX)))
}

fn parse_time(text: &str) -> Result<Position, BadPosition> {
    if let Some(ago) = text.strip_prefix('-') {
        return milliseconds(ago).map(Position::Ago).map_err(|why| bad(format!("\"@{text}\": {why}")));
    }
    let time: Timestamp = text.parse().map_err(|_| {
        bad(format!("\"@{text}\" is no time with a zone, such as @2026-11-01T00:00Z or @-1h"))
    })?;
    match time.as_millisecond() {
        ms if ms >= 0 => Ok(Position::Time(ms)),
        _ => Err(bad(format!("\"@{text}\" lies before 1970"))),
    }
}

/// A length of time such as `1h30m`, `250ms` or `7d`, in milliseconds.
pub(crate) fn milliseconds(text: &str) -> Result<i64, String> {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    let wrong = || format!("\"{text}\" is no length of time such as 500ms, 90s, 1h30m or 7d");
    // jiff keeps weeks and days out of durations, as days differ in length; an age in days means 24 hours each.
    let (days, rest) = match text.find(['w', 'd']).and_then(|at| text.split_at_checked(at)) {
        Some((digits, unit)) => {
            let each = if unit.starts_with('w') { 7 * DAY } else { DAY };
            let number: i64 = digits.parse().map_err(|_| wrong())?;
            (number.checked_mul(each).ok_or_else(wrong)?, unit.get(1..).unwrap_or_default())
        }
        None => (0, text),
    };
    let tail = if rest.is_empty() && days > 0 {
        0
    } else {
        let tail: SignedDuration = rest.parse().map_err(|_| wrong())?;
        i64::try_from(tail.as_millis()).map_err(|_| wrong())?
    };
    match days.checked_add(tail) {
        Some(total) if tail >= 0 && days >= 0 => Ok(total),
        _ => Err(wrong()),
    }
}

impl FromStr for Range {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let (from, to) =
            text.split_once("..").ok_or_else(|| bad(format!("\"{text}\" is no range FROM..TO")))?;
        Ok(Self { from: from.parse()?, to: to.parse()? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::End => f.write_str("end"),
            Self::Offset(offset) => write!(f, "{offset}"),
            Self::BeforeEnd(count) => write!(f, "-{count}"),
            Self::AfterGroup(count) => write!(f, "+{count}"),
            Self::Ago(ms) => write!(f, "@-{ms}ms"),
            Self::Time(ms) => match Timestamp::from_millisecond(*ms) {
                Ok(time) => write!(f, "@{time}"),
                Err(_) => write!(f, "@{ms}ms"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Position {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_form_means_what_the_table_says() {
        assert_eq!(parse("start"), Position::Start);
        assert_eq!(parse("end"), Position::End);
        assert_eq!(parse("0"), Position::Offset(0));
        assert_eq!(parse("9223372036854775807"), Position::Offset(i64::MAX));
        assert_eq!(parse("-10"), Position::BeforeEnd(10));
        assert_eq!(parse("+5"), Position::AfterGroup(5));
        assert_eq!(parse("@-1h"), Position::Ago(3_600_000));
        assert_eq!(parse("@-1h30m"), Position::Ago(5_400_000));
        assert_eq!(parse("@-250ms"), Position::Ago(250));
        assert_eq!(parse("@-1d12h"), Position::Ago(129_600_000));
        assert_eq!(parse("@-2w"), Position::Ago(1_209_600_000));
        assert_eq!(parse("@2026-11-01T00:00Z"), Position::Time(1_793_491_200_000));
        assert_eq!(parse("@2026-11-01T02:00+02:00"), Position::Time(1_793_491_200_000));
        assert_eq!(parse("@1970-01-01T00:00:00.5Z"), Position::Time(500));
    }

    #[test]
    fn what_is_none_of_them_is_refused_with_the_grammar() {
        for text in [
            "",
            "Start",
            "latest",
            "1.5",
            "-",
            "+",
            "--3",
            "-4294967296",
            "9223372036854775808",
            "@",
            "@-",
            "@--1h",
            "@-1x",
            "@2026-11-01",
            "@2026-11-01T00:00",
            "@1969-12-31T23:59Z",
            "@-99999999999999w",
            " 1",
        ] {
            let error = text.parse::<Position>().expect_err(text).to_string();
            assert!(error.contains("@2026-11-01T00:00Z"), "{error}");
        }
    }

    #[test]
    fn ranges_need_both_ends() {
        assert_eq!("@-10m..end".parse(), Ok(Range { from: Position::Ago(600_000), to: Position::End }));
        assert_eq!("5..-1".parse(), Ok(Range { from: Position::Offset(5), to: Position::BeforeEnd(1) }));
        for text in ["5", "..", "5..", "..end", "5...7"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_age_counts_from_the_clock_and_never_before_1970() {
        assert_eq!(parse("@-1s").timestamp_ms(5_000), Some(4_000));
        assert_eq!(parse("@-1h").timestamp_ms(5_000), Some(0));
        assert_eq!(parse("42").timestamp_ms(5_000), None);
    }

    #[test]
    fn it_is_written_as_it_was_read() {
        for text in ["start", "end", "42", "-10", "+5", "@2026-11-01T00:00:00Z"] {
            assert_eq!(parse(text).to_string(), text);
            assert_eq!(parse(&parse(text).to_string()), parse(text));
        }
        assert_eq!(parse("@-1s").to_string(), "@-1000ms");
    }
}
