//! Help and documents say what the program does.

use std::process::{Command, Stdio};

use crate::harness::{ANNALS, Server, annals};

/// The commands without subcommands, by their full names, and the example each help shows.
fn examples() -> Vec<(String, Option<String>)> {
    fn walk(command: &clap::Command, found: &mut Vec<(String, Option<String>)>) {
        let subcommands: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
        if subcommands.is_empty() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example =
                help.strip_prefix("Example:\n  ").map(|rest| rest.lines().next().unwrap().to_owned());
            found.push((command.get_bin_name().unwrap().to_owned(), example));
        }
        subcommands.into_iter().for_each(|subcommand| walk(subcommand, found));
    }
    let mut command = annals::cli::command();
    command.build();
    let mut found = Vec::new();
    walk(&command, &mut found);
    found
}

#[test]
fn every_command_has_an_example_and_every_example_runs() {
    let server = Server::start();
    // As its own example has it, else that one would be a conflict.
    server.ok(&["topic", "create", "orders", "--partitions", "16"], b"");
    server.ok(&["produce", "orders", "-k", "k"], b"{\"id\":1}\n{\"id\":2}\n");
    server.ok(&["consume", "orders", "-g", "billing", "-n", "1"], b"");
    let examples = examples();
    assert!(examples.len() >= 15, "{examples:?}");
    let binary = std::path::Path::new(ANNALS).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let run = |example: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", example]).current_dir(server.scratch());
        shell.env("PATH", &path).env("ANNALS_SERVER", server.address()).stdin(Stdio::null());
        shell
    };
    for (name, example) in &examples {
        let example = example.as_deref().unwrap_or_else(|| panic!("{name} --help shows no example"));
        match name.as_str() {
            // Runs until it is stopped, on the standard port: as written, but elsewhere.
            "annals serve" => {
                let mut child = run(&format!("exec {example} --grpc 127.0.0.1:0 -f json"))
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut line = String::new();
                std::io::BufRead::read_line(
                    &mut std::io::BufReader::new(child.stdout.take().unwrap()),
                    &mut line,
                )
                .unwrap();
                child.kill().unwrap();
                child.wait().unwrap();
                assert!(line.starts_with('{'), "{line}");
            }
            _ => {
                // As written, but shortly.
                let short = match name.as_str() {
                    "annals bench limits" => " --runs 1",
                    name if name.starts_with("annals bench ") => " --runs 1 --duration 100ms --warmup 50ms",
                    _ => "",
                };
                let example = &format!("{example}{short}");
                let output = run(example).output().unwrap();
                let code = output.status.code().unwrap();
                // A dry run that finds something ends with 8.
                let fine = code == 0 || (code == 8 && example.contains("--dry-run"));
                assert!(fine, "{example}: {code}: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}

#[test]
fn the_reference_is_what_help_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
    let says = annals::cli::reference();
    if std::env::var_os("ANNALS_BLESS").is_some() {
        std::fs::write(path, &says).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == says,
        "docs/cli.md is not what --help says; write it anew: ANNALS_BLESS=1 cargo test --test cli"
    );
}

#[test]
fn help_and_version_are_data_and_no_error() {
    for args in [&["--help"] as &[&str], &["help", "topic"], &["topic", "create", "--help"], &["--version"]] {
        let output = annals(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = annals(&["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("consume") && script.contains("replay"), "{shell}");
    }
}
