//! Asking before something is destroyed or moved.
//!
//! On a terminal a person is asked; in a pipe nobody can be, so there `--yes` is needed. `--dry-run` shows the rows that
//! would go or change, the very table the real run prints, and ends with 8 if there are any.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;

use super::exit::{Exit, Failure};

/// How a destructive command is let loose.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Destroy {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only show what would go or change; ends with 8 if there is anything
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
}

impl Destroy {
    /// Asks, where that is due; returns if the answer is yes.
    pub(crate) async fn confirm(self, question: String) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::usage(format!("{question} There is nobody to ask"))
                .next("Say so with --yes, or look first with --dry-run"));
        }
        // On a thread of its own, so that Ctrl-C still ends the command.
        match tokio::task::spawn_blocking(move || ask(&question)).await {
            Ok(true) => Ok(()),
            _ => Err(Failure::new(Exit::Failed, "nothing was changed")),
        }
    }
}

fn ask(question: &str) -> bool {
    // If the question cannot be shown, the answer will not come either.
    let _ = write!(io::stderr(), "{question} Type yes: ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}
