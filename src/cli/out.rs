//! Standard output is data, standard error is talk.
//!
//! A reader that goes away (`| head`) is not a failure: [`Out::write`] says so once, and the command ends quietly.

use std::io::{self, IsTerminal as _, Write as _};

use super::exit::{Exit, Failure, io_failure};

/// What standard output is, and how it may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    /// A person looks at it.
    pub(crate) terminal: bool,
    /// It may be coloured.
    pub(crate) colour: bool,
}

/// Whether anybody still reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Reader {
    /// What was written was taken.
    Here,
    /// The pipe is closed: write nothing more.
    Gone,
}

impl Out {
    /// Looks at standard output and `NO_COLOR`.
    pub(crate) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let asked_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { terminal, colour: terminal && !asked_plain }
    }

    /// Columns of the terminal; 0 if it is none.
    pub(crate) fn width(self) -> usize {
        if self.terminal { usize::from(console::Term::stdout().size().1) } else { 0 }
    }

    /// Writes all of `bytes` and flushes them.
    #[allow(clippy::unused_self, reason = "whoever prints has looked at what it prints to")]
    pub(crate) fn write(self, bytes: &[u8]) -> Result<Reader, Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(Reader::Here),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
            Err(error) => Err(io_failure("standard output cannot be written", &error)),
        }
    }

    /// Writes what a command has to say, where it does not matter whether anybody reads on.
    pub(crate) fn finish(self, bytes: &[u8], exit: Exit) -> Result<Exit, Failure> {
        match self.write(bytes)? {
            Reader::Here | Reader::Gone => Ok(exit),
        }
    }
}

/// Says something to the person at the terminal.
pub(crate) fn talk(line: impl std::fmt::Display) {
    // Nobody to talk to is no reason to fail.
    let _ = writeln!(io::stderr(), "{line}");
}
