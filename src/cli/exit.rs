//! How a command ends: its exit code, and the three parts of every error a person reads.
//!
//! | code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | wrong usage: an argument, a name, a value |
//! | 3 | not found: topic, group, partition |
//! | 4 | denied |
//! | 5 | unavailable: no server, or one that cannot serve now; trying again may help |
//! | 6 | conflict: it exists already, or somebody else was faster |
//! | 7 | damaged data |
//! | 8 | a dry run found something it would change |
//! | 130 | interrupted (Ctrl-C) |
//!
//! Every error says what happened, with the value in it, and the next command to type.

use std::{fmt, io, process::ExitCode};

use annals_client::{Code, Error};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// Failed for a reason that has no code of its own.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// Topic, group or partition not found.
    NotFound = 3,
    /// Not permitted.
    Denied = 4,
    /// No server, or one that cannot serve now.
    Unavailable = 5,
    /// It exists already, or somebody else was faster.
    Conflict = 6,
    /// Data is damaged.
    Damaged = 7,
    /// A dry run found something it would change.
    Differences = 8,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The exit with this code; an unknown code is a failure.
    pub(crate) fn of_code(code: u8) -> Self {
        let all = [
            Self::Ok,
            Self::Usage,
            Self::NotFound,
            Self::Denied,
            Self::Unavailable,
            Self::Conflict,
            Self::Damaged,
            Self::Differences,
            Self::Interrupted,
        ];
        all.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: what happened, and what to type next.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code to end with.
    pub(crate) exit: Exit,
    /// What happened, with the value it happened to.
    pub(crate) what: String,
    /// The next command, or the next thing to do.
    pub(crate) next: Option<String>,
}

impl Failure {
    /// A failure with its code; add the next step with [`Failure::next`].
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), next: None }
    }

    /// Wrong usage.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Says what to do next.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Puts what was being done in front of what happened.
    #[must_use]
    pub(crate) fn while_doing(mut self, doing: impl fmt::Display) -> Self {
        self.what = format!("{doing}: {}", self.what);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what.trim_end_matches('.');
        match &self.next {
            Some(next) => write!(f, "{what}. {next}"),
            None => f.write_str(what),
        }
    }
}

/// The server's own sentence names the value and the next command; only what never reached a server needs one.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = exit_of(&error);
        let failure = Self::new(exit, error.message());
        if error.is_unreachable() {
            return failure.next("Start one: annals serve. Or name another: --server HOST:PORT");
        }
        failure
    }
}

fn exit_of(error: &Error) -> Exit {
    match error.code() {
        Code::Ok => Exit::Ok,
        Code::InvalidArgument | Code::Unimplemented => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => Exit::Denied,
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => Exit::Unavailable,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => Exit::Conflict,
        Code::DataLoss => Exit::Damaged,
        Code::Cancelled | Code::Unknown | Code::OutOfRange | Code::Internal => Exit::Failed,
    }
}

/// A failure of this machine: a file, a pipe, a thread.
pub(crate) fn io_failure(doing: impl fmt::Display, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        io::ErrorKind::PermissionDenied => Exit::Denied,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("{doing}: {error}"))
}
