//! The reference of the command line, as `docs/cli.md` has it: what `--help` says, for every command.

use clap::Command;

const INTRODUCTION: &str = "# Command line

Written by `annals` itself: every section is what `--help` prints. A test holds this file to it.

Standard output is data, standard error is talk. Lists and records are tables on a terminal and JSON lines in a pipe;
`-f` chooses. Colours are left out in a pipe and with `NO_COLOR`. Flags count before environment variables.

| exit code | means |
|---|---|
| 0 | done; also when whoever read the output had enough of it |
| 1 | failed |
| 2 | wrong usage: an argument, a name, a value |
| 3 | not found: topic, group, partition, file |
| 4 | denied |
| 5 | unavailable: no server, or one that cannot serve now |
| 6 | conflict: it exists already, or somebody else was faster |
| 7 | damaged data |
| 8 | a dry run found something it would change |
| 130 | interrupted (Ctrl-C) |

## Positions

| written | means, in each partition |
|---|---|
| `start`, `end` | the first offset kept; the high watermark |
| `42` | this offset; with several partitions, the nearest each has |
| `-10` | ten records before the high watermark |
| `+5` | five offsets after where the group stands |
| `@-1h` | the first record not older than an hour: `w d h m s ms`, together as `1h30m` |
| `@2026-11-01T00:00Z` | the first record at or after this time; a zone is required |

A range is `FROM..TO`, without `TO` itself.
";

/// Markdown for all commands, in the order of `--help`.
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut annals = super::command().term_width(110).max_term_width(110);
    annals.build();
    section(&annals, &mut text);
    text
}

fn section(command: &Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let help = command.clone().render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    *text += &["\n## ", name, "\n\n```text\n", help.join("\n").trim_end(), "\n```\n"].concat();
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        section(subcommand, text);
    }
}
