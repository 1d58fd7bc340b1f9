//! `annals completions SHELL`: what to type next, for the shell.

use clap::{Args, Command};
use clap_complete::Shell;

use super::{
    exit::{Exit, Failure},
    out::Out,
};

const EXAMPLE: &str = "Example:\n  annals completions bash > annals.bash";

/// Print the completions of a shell
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

pub(crate) fn run(args: &Completions, mut command: Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "annals", &mut script);
    Out::new().finish(&script, Exit::Ok)
}
