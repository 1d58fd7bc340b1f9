//! What the demo says, and what it claims.

use crate::cli::{
    exit::{Exit, Failure},
    out::{Out, Reader},
};

/// Prints, and keeps count of claims that do not hold.
#[derive(Debug)]
pub(super) struct Story {
    out: Out,
    broken: usize,
}

impl Story {
    pub(super) fn new() -> Self {
        Self { out: Out::new(), broken: 0 }
    }

    /// A line.
    pub(super) fn say(&mut self, line: impl AsRef<str>) -> Result<(), Failure> {
        let mut text = line.as_ref().as_bytes().to_vec();
        text.push(b'\n');
        match self.out.write(&text)? {
            Reader::Here => Ok(()),
            Reader::Gone => Err(Failure::new(Exit::Failed, "nobody looks at the demo any more")),
        }
    }

    /// A heading.
    pub(super) fn step(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        let (bold, plain) = if self.out.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.say(format!("\n{bold}{}{plain}", text.as_ref()))
    }

    /// Something that must hold.
    pub(super) fn claim(&mut self, holds: bool, text: impl AsRef<str>) -> Result<(), Failure> {
        let (colour, plain) = match (self.out.colour, holds) {
            (false, _) => ("", ""),
            (true, true) => ("\x1b[32m", "\x1b[0m"),
            (true, false) => ("\x1b[31m", "\x1b[0m"),
        };
        let mark = if holds { "ok  " } else { "NOT " };
        self.broken += usize::from(!holds);
        self.say(format!("  {colour}{mark}{plain}{}", text.as_ref()))
    }

    /// How it ends.
    pub(super) fn end(&self) -> Result<Exit, Failure> {
        match self.broken {
            0 => Ok(Exit::Ok),
            broken => Err(Failure::new(Exit::Failed, format!("{broken} of the demo's claims do not hold"))),
        }
    }
}
