//! Where a replay stands, so that it can be stopped and gone on with.
//!
//! Kept as text, in a file (`--resume=FILE`) or, for each partition, in what a group commits:
//!
//! ```text
//! annals-replay 1                      first line of a file
//! orders 5f3a01c2                      topic, and what was asked for beside it
//! 0 1200 4000                          partition, offset to go on with, first offset that is not in the range
//! ```

use std::{collections::BTreeMap, fs, io, path::Path};

use super::source::Span;
use crate::cli::exit::{Failure, io_failure};

const TITLE: &str = "annals-replay 1";

/// Where each partition stands, and which replay it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) topic: String,
    /// Of everything that decides which records come: a replay that asks for others is another one.
    pub(super) asked: u32,
    pub(super) spans: BTreeMap<u32, Span>,
}

impl Place {
    /// What a file says; `None` = there is no file.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, Failure> {
        let name = path.display();
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| {
                Failure::usage(format!("{name} is not where a replay stands"))
                    .next("Name another file, or remove it to begin anew")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_failure(format!("{name} cannot be read"), &error)),
        }
    }

    /// Replaces the file: it holds what it held or all of this.
    pub(super) fn save(&self, path: &Path) -> Result<(), Failure> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".tmp");
        fs::write(&unfinished, self.to_string())
            .and_then(|()| fs::rename(&unfinished, path))
            .map_err(|error| io_failure(format!("{} cannot be written", path.display()), &error))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (topic, asked) = lines.next().filter(|line| *line == TITLE).and(lines.next())?.split_once(' ')?;
        let mut spans = BTreeMap::new();
        for line in lines {
            let mut numbers = line.split(' ');
            let partition = numbers.next()?.parse().ok()?;
            let (next, to) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
            spans.insert(partition, Span { next, to });
        }
        Some(Self { topic: topic.to_owned(), asked: u32::from_str_radix(asked, 16).ok()?, spans })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{TITLE}\n{} {:08x}", self.topic, self.asked)?;
        for (partition, span) in &self.spans {
            writeln!(f, "{partition} {} {}", span.next, span.to)?;
        }
        Ok(())
    }
}

/// What a group's position carries of a replay.
pub(super) fn note(to: i64, asked: u32) -> String {
    format!("replay until {to}, {asked:08x}")
}

/// What [`note`] wrote.
pub(super) fn read_note(note: &str) -> Option<(i64, u32)> {
    let (to, asked) = note.strip_prefix("replay until ")?.split_once(", ")?;
    Some((to.parse().ok()?, u32::from_str_radix(asked, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let spans = [(0, Span { next: 3, to: 9 }), (7, Span { next: 9, to: 9 })];
        let place = Place { topic: "orders".into(), asked: 0x5F_3A01, spans: spans.into() };
        assert_eq!(Place::parse(&place.to_string()), Some(place));
        assert_eq!(read_note(&note(42, 7)), Some((42, 7)));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "annals-replay 2\nt 0\n", "annals-replay 1\nt\n", "annals-replay 1\nt 0\n1 2\n"] {
            assert_eq!(Place::parse(text), None, "{text:?}");
        }
        for text in ["", "replay until 3", "replay until x, 0", "until 3, 0"] {
            assert_eq!(read_note(text), None, "{text:?}");
        }
    }
}
