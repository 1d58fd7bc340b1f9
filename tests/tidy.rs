//! The rules of the house, as tests. Each rule is a function from sources to complaints, so that each has a second
//! test below that shows it can fail: a rule that cannot is worth nothing.
//!
//! ```text
//! annals-wire <- { clock sync metrics } <- storage <- state <- broker <- { grpc http kafka cluster } <- server <- cli <- main
//!                                                                       \- model
//! ```

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[path = "tidy/source.rs"]
mod source;

use source::{Source, names_in};

/// Rooms from left to right. A room names only rooms to its left; those in one line with it (the doors) not at all.
const LINE: &[&[&str]] = &[
    &["sync"],
    &["clock"],
    &["metrics"],
    &["storage"],
    &["state"],
    &["broker"],
    &["grpc", "http", "kafka", "cluster", "model"],
    &["server"],
    &["cli"],
    &["fuzz"],
    &["lib", "main"],
];
/// Where the engine reaches a file system: its own door, and what belongs to the user who started it.
const FILE_SYSTEM: &[&str] = &[
    "src/storage/disk/real.rs",
    "src/storage/disk/real/",
    "src/storage/map.rs",
    "src/storage/fault.rs",
    // What happens to files behind the engine's back.
    "src/storage/tests/lost.rs",
    "src/cli/",
    "src/cli.rs",
    "src/server/",
    "src/main.rs",
];
const UNSAFE: &[&str] = &["src/storage/map.rs", "src/storage/fault.rs", "src/server/alloc.rs"];
/// The bench measures the framework itself, too.
const TONIC: &[&str] = &["src/grpc/", "src/server/", "src/cli/bench/limits/echo.rs"];
const NO_TOKIO: &[&str] =
    &["src/sync.rs", "src/clock.rs", "src/metrics.rs", "src/metrics/", "src/storage/", "src/state/"];
const LONG: usize = 500;
const TOO_LONG: usize = 800;
const MAIN: usize = 60;

fn layers(sources: &[Source]) -> Vec<String> {
    let place = |room: &str| LINE.iter().position(|rooms| rooms.contains(&room));
    let mut complaints = Vec::new();
    for source in sources {
        let Some(room) = source.room() else { continue };
        let Some(here) = place(room) else {
            complaints.push(format!("{}: `{room}` has no place in the line of rooms", source.path));
            continue;
        };
        for named in source.names() {
            let supers = named.parts.iter().take_while(|part| *part == "super").count();
            let other = match named.parts.first().map(String::as_str) {
                Some("crate") => named.parts.get(1),
                Some("super") if supers >= source.depth() => {
                    named.parts.get(supers).filter(|part| place(part).is_some())
                }
                _ => None,
            };
            let Some(other) = other.filter(|other| *other != room) else { continue };
            let complaint = match place(other) {
                Some(there) if there < here => continue,
                Some(there) if there == here => "stands beside it: neither may name the other",
                Some(_) => "stands to its right",
                None => "is no room",
            };
            let (path, line) = (&source.path, named.line);
            complaints
                .push(format!("{path}:{line}: {room} names `{}`, but {other} {complaint}", named.text()));
        }
    }
    complaints
}

fn sizes(sources: &[Source]) -> Vec<String> {
    let judge = |source: &Source| {
        let lines = source.text.lines().count();
        let reason = source.text.lines().take(3).find_map(|line| line.strip_prefix("// long:"));
        let has_reason = reason.is_some_and(|reason| !reason.trim().is_empty());
        let what = if lines > TOO_LONG {
            format!("at most {TOO_LONG} are allowed: split it")
        } else if lines > LONG && !has_reason {
            format!("more than {LONG} need `// long: <reason>` in the first lines")
        } else if source.path == "src/main.rs" && lines >= MAIN {
            format!("the entry stays below {MAIN}")
        } else {
            return None;
        };
        Some(format!("{}: {lines} lines; {what}", source.path))
    };
    sources.iter().filter_map(judge).collect()
}

fn file_systems(sources: &[Source]) -> Vec<String> {
    let doors: [&[&str]; 5] = [&["std", "fs"], &["rustix", "fs"], &["memmap2"], &["tokio", "fs"], &["libc"]];
    let split: Vec<_> = sources.iter().map(|source| (source, source.split_tests())).collect();
    let tests: BTreeSet<&String> = split.iter().flat_map(|(_, (_, files))| files).collect();
    // What lies below a module of tests is tests, too.
    let is_test = |path: &String| {
        let holds = |dir: &str| path.starts_with(dir);
        tests.iter().any(|test| *test == path || test.strip_suffix("mod.rs").is_some_and(holds))
    };
    let mut complaints = Vec::new();
    for (source, (code, _)) in &split {
        if source.is_in(FILE_SYSTEM) || is_test(&source.path) {
            continue;
        }
        for named in names_in(code) {
            if doors.iter().any(|door| named.begins(door)) {
                let (path, line, name) = (&source.path, named.line, named.text());
                complaints
                    .push(format!("{path}:{line}: `{name}`: files are reached through storage::disk only"));
            }
        }
    }
    complaints
}

fn time_and_randomness(sources: &[Source]) -> Vec<String> {
    let readers: [&[&str]; 9] = [
        &["Instant", "now"],
        &["SystemTime", "now"],
        &["Timestamp", "now"],
        &["Zoned", "now"],
        &["Utc", "now"],
        &["Local", "now"],
        &["Uuid", "new_v4"],
        &["Uuid", "now_v7"],
        &["thread_rng"],
    ];
    let crates: [&[&str]; 5] = [&["rand"], &["fastrand"], &["getrandom"], &["rustix", "rand"], &["oorandom"]];
    complain(sources, &["src/clock.rs"], "time and randomness come from a clock::Clock", |named| {
        readers.iter().any(|reader| named.ends(reader))
            || crates.iter().any(|name| named.parts.len() > 1 && named.begins(name))
    })
}

fn locks(sources: &[Source]) -> Vec<String> {
    const FREE: [&str; 3] = ["Arc", "Weak", "LazyLock"];
    complain(sources, &["src/sync.rs"], "locks and atomics come from crate::sync", |named| {
        let of_std = named.begins(&["std", "sync"]) || named.begins(&["core", "sync"]);
        let what = named.parts.get(2).map(String::as_str);
        named.begins(&["parking_lot"])
            || named.begins(&["arc_swap"])
            || (of_std && what.is_some_and(|what| !FREE.contains(&what)))
    })
}

fn frameworks(sources: &[Source]) -> Vec<String> {
    let starts = |named: &source::Named, name: &str| {
        named.parts.len() > 1
            && named
                .parts
                .first()
                .is_some_and(|first| first == name || first.starts_with(&format!("{name}_")))
    };
    let mut complaints = complain(sources, TONIC, "tonic stays in the gRPC door and the server", |named| {
        starts(named, "tonic")
    });
    let sync_rooms: Vec<&Source> = sources.iter().filter(|source| source.is_in(NO_TOKIO)).collect();
    complaints.extend(complain(sync_rooms, &[], "the engine is synchronous and knows no tokio", |named| {
        starts(named, "tokio") || starts(named, "futures")
    }));
    complaints
}

fn unsafety(sources: &[Source]) -> Vec<String> {
    complain(sources, UNSAFE, "unsafe code lies in three files only", |named| named.parts == ["unsafe"])
}

/// One complaint for each name outside of `free` places that is `bad`.
fn complain<'s>(
    sources: impl IntoIterator<Item = &'s Source>,
    free: &[&str],
    rule: &str,
    bad: impl Fn(&source::Named) -> bool,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.into_iter().filter(|source| !source.is_in(free)) {
        let names = source.names();
        let found = names.iter().filter(|named| bad(named));
        complaints
            .extend(found.map(|named| format!("{}:{}: `{}`: {rule}", source.path, named.line, named.text())));
    }
    complaints
}

fn essays(sources: &[Source]) -> Vec<String> {
    let opens = |source: &Source| {
        let mut lines =
            source.text.lines().skip_while(|line| line.starts_with("// long:") || line.is_empty());
        lines.next().is_some_and(|line| line.strip_prefix("//!").is_some_and(|said| said.trim().len() > 10))
    };
    let silent = sources.iter().filter(|source| !opens(source));
    silent.map(|source| format!("{}: does not open with `//!` and what it is", source.path)).collect()
}

/// `files`: path and bytes. What is no text is not looked at.
fn machine_paths(files: &[(String, Vec<u8>)]) -> Vec<String> {
    // In two halves, or this file would complain about itself.
    let homes = ["/wo rk/", "/fa rm/", "/ro ot/", "/ho me/", "/Us ers/"].map(|home| home.replace(' ', ""));
    let mut complaints = Vec::new();
    for (path, bytes) in files {
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        for (number, line) in text.lines().enumerate() {
            let here = homes.iter().find(|home| {
                line.match_indices(home.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    // A path in full, not the middle of another name or of an address.
                    !before.is_some_and(|c| {
                        c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '*' | '}')
                    })
                })
            });
            if let Some(home) = here {
                complaints.push(format!("{path}:{}: names a path of one machine ({home}...)", number + 1));
            }
        }
    }
    complaints
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files that are, or are about to be, in the repository.
fn tracked() -> Vec<String> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    match git.output() {
        Ok(output) if output.status.success() => {
            let listed = String::from_utf8_lossy(&output.stdout).into_owned();
            listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect()
        }
        // An unpacked release has no history: everything but what is built is tracked.
        _ => {
            let mut found = Vec::new();
            walk(&root(), "", &mut found);
            found
        }
    }
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a readable directory") {
        let entry = entry.expect("a readable entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "annals-data") {
                walk(&entry.path(), &format!("{prefix}{name}/"), found);
            }
        } else {
            found.push(format!("{prefix}{name}"));
        }
    }
}

/// The Rust sources below some directories.
fn sources(places: &[&str]) -> Vec<Source> {
    let rust = |path: &String| {
        Path::new(path).extension().is_some_and(|ending| ending == "rs")
            && places.iter().any(|place| path.starts_with(place))
    };
    let read = |path: String| Some(Source::new(&path, &fs::read_to_string(root().join(&path)).ok()?));
    let found: Vec<Source> = tracked().into_iter().filter(rust).filter_map(read).collect();
    for place in places {
        assert!(found.iter().any(|source| source.path.starts_with(place)), "no sources below {place}");
    }
    found
}

#[track_caller]
fn clean(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

const OURS: &[&str] = &["src/", "proto/src/"];
const EVERYWHERE: &[&str] = &["src/", "proto/src/", "clients/rust/", "tests/"];

#[test]
fn rooms_name_only_rooms_to_their_left() {
    clean(&layers(&sources(&["src/"])));
}

#[test]
fn files_are_short_or_say_why_not() {
    clean(&sizes(&sources(EVERYWHERE)));
}

#[test]
fn only_the_disk_reaches_files() {
    clean(&file_systems(&sources(OURS)));
}

#[test]
fn only_the_clock_reads_time_and_randomness() {
    clean(&time_and_randomness(&sources(OURS)));
}

#[test]
fn only_sync_names_locks() {
    clean(&locks(&sources(OURS)));
}

#[test]
fn frameworks_stay_at_the_doors() {
    clean(&frameworks(&sources(&["src/"])));
}

#[test]
fn unsafe_lies_in_three_files() {
    clean(&unsafety(&sources(&["src/", "proto/src/", "clients/rust/"])));
}

#[test]
fn every_module_says_what_it_is() {
    clean(&essays(&sources(&["src/"])));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let read = |path: String| fs::read(root().join(&path)).ok().map(|bytes| (path, bytes));
    let files: Vec<_> = tracked().into_iter().filter_map(read).collect();
    assert!(files.len() > 10, "the repository is not where it was looked for");
    clean(&machine_paths(&files));
}

#[path = "tidy/can_fail.rs"]
mod can_fail;

#[path = "tidy/promises.rs"]
mod promises;
