//! Each rule, shown to fail where it should and to hold where it should.

use super::*;

#[track_caller]
fn expect(rule: impl Fn(&[Source]) -> Vec<String>, files: &[(&str, &str)], complaints: &[&str]) {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    let found = rule(&sources);
    assert_eq!(found.len(), complaints.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(complaints) {
        assert!(found.contains(expected), "{found} does not say {expected}");
    }
}

#[test]
fn an_arrow_to_the_right() {
    expect(
        layers,
        &[("src/storage/log.rs", "use std::fmt;\nuse crate::broker::Broker;")],
        &["src/storage/log.rs:2: storage names `crate::broker::Broker`, but broker stands to its right"],
    );
    expect(layers, &[("src/clock.rs", "fn f() { crate::storage::x() }")], &["storage stands to its right"]);
    expect(
        layers,
        &[("src/state/mod.rs", "use crate::{sync::Arc, clock::Clock, grpc};")],
        &["`crate::grpc`"],
    );
    expect(layers, &[("src/server/mod.rs", "use crate::cli;")], &["cli stands to its right"]);
    expect(layers, &[("src/broker/a.rs", "use crate::model::x;")], &["model stands to its right"]);
}

#[test]
fn an_arrow_in_disguise() {
    expect(
        layers,
        &[("src/storage/log.rs", "use super::super::broker::Broker;")],
        &["`super::super::broker::Broker`"],
    );
    expect(layers, &[("src/clock.rs", "use super::storage::Disk;")], &["storage stands to its right"]);
    expect(layers, &[("src/storage/disk/real.rs", "use super::super::state::x;")], &[]);
}

#[test]
fn a_door_that_names_a_door() {
    expect(layers, &[("src/grpc/raw.rs", "use crate::http::x;")], &["http stands beside it"]);
}

#[test]
fn a_room_without_a_place() {
    expect(layers, &[("src/helpers.rs", "")], &["`helpers` has no place"]);
    expect(layers, &[("src/cli/a.rs", "use crate::helpers::x;")], &["helpers is no room"]);
}

#[test]
fn arrows_to_the_left_and_words_in_comments_are_fine() {
    let code = "//! Not crate::server.\nuse crate::{storage::{Disk, File}, sync::Arc};\n/* crate::cli */ fn f() { \"crate::cli\"; crate::broker::x() }";
    expect(layers, &[("src/broker/a.rs", code), ("src/lib.rs", "pub use crate::cli::x;")], &[]);
}

#[test]
fn long_files() {
    let lines = |count: usize| "x\n".repeat(count);
    expect(sizes, &[("src/a.rs", &lines(500))], &[]);
    expect(sizes, &[("src/a.rs", &lines(501))], &["501 lines; more than 500"]);
    expect(sizes, &[("src/a.rs", &("// long: one table\n".to_owned() + &lines(501)))], &[]);
    expect(sizes, &[("src/a.rs", &("// long:  \n".to_owned() + &lines(501)))], &["more than 500"]);
    expect(sizes, &[("src/a.rs", &("// long: one table\n".to_owned() + &lines(800)))], &["split it"]);
    expect(sizes, &[("src/main.rs", &lines(60))], &["the entry"]);
    expect(sizes, &[("src/main.rs", &lines(59))], &[]);
}

#[test]
fn a_second_way_to_files() {
    for code in [
        "use std::fs;",
        "use std::{fmt, fs::File};",
        "std::fs::read(x)",
        "use rustix::{fs::{openat}};",
        "use memmap2::Mmap;",
        "tokio::fs::read(x)",
        "libc::open(x)",
        "use std::*;",
    ] {
        expect(file_systems, &[("src/storage/log.rs", code)], &["src/storage/log.rs:1"]);
        expect(file_systems, &[("src/storage/disk/real/file.rs", code), ("src/cli/serve.rs", code)], &[]);
        let inline = format!("#[cfg(test)]\nmod tests {{ {code} ; }}");
        expect(file_systems, &[("src/storage/log.rs", &inline)], &[]);
        expect(
            file_systems,
            &[("src/storage/log.rs", "#[cfg(test)]\nmod t;"), ("src/storage/log/t.rs", code)],
            &[],
        );
    }
    expect(file_systems, &[("src/storage/log.rs", "use std::{fmt, os::unix::fs::x, path::Path};")], &[]);
    expect(
        file_systems,
        &[("src/storage/log.rs", "#[cfg(test)]\nmod tests {}\nuse std::fs;")],
        &["log.rs:3"],
    );
}

#[test]
fn a_second_clock() {
    for code in [
        "Instant::now()",
        "std::time::SystemTime::now()",
        "let read = Instant::now;",
        "uuid::Uuid::new_v4()",
        "use rand::Rng;",
        "rustix::rand::getrandom(x, y)",
        "jiff::Timestamp::now()",
    ] {
        expect(time_and_randomness, &[("src/cli/a.rs", code)], &["come from a clock::Clock"]);
        expect(time_and_randomness, &[("src/clock.rs", code)], &[]);
    }
    expect(
        time_and_randomness,
        &[("src/cli/a.rs", "clock.now(); let rand = 1; x.operand::y; Duration::ZERO")],
        &[],
    );
}

#[test]
fn a_lock_from_elsewhere() {
    for code in [
        "use parking_lot::Mutex;",
        "use std::sync::{Arc, Mutex};",
        "std::sync::atomic::AtomicU64::new(0)",
        "use std::{fmt, sync::{RwLock}};",
        "use std::sync::*;",
        "use arc_swap::ArcSwap;",
        "core::sync::atomic::fence(x)",
    ] {
        expect(locks, &[("src/broker/a.rs", code)], &["come from crate::sync"]);
        expect(locks, &[("src/sync.rs", code)], &[]);
    }
    expect(
        locks,
        &[("src/broker/a.rs", "use std::sync::Arc; use tokio::sync::Mutex; use crate::sync::Mutex;")],
        &[],
    );
}

#[test]
fn a_framework_in_the_engine() {
    expect(frameworks, &[("src/broker/a.rs", "use tonic::Status;")], &["tonic stays"]);
    expect(frameworks, &[("src/cli/a.rs", "tonic_types::x()")], &["tonic stays"]);
    expect(frameworks, &[("src/grpc/a.rs", "tonic::x()"), ("src/server/a.rs", "tonic_health::x()")], &[]);
    expect(frameworks, &[("src/storage/a.rs", "use tokio::sync::Notify;")], &["no tokio"]);
    expect(frameworks, &[("src/state/a.rs", "tokio_stream::x()")], &["no tokio"]);
    expect(frameworks, &[("src/broker/a.rs", "use tokio::sync::Notify;")], &[]);
}

#[test]
fn unsafe_elsewhere() {
    expect(unsafety, &[("src/storage/log.rs", "fn f() {\n unsafe { g() } }")], &["src/storage/log.rs:2"]);
    expect(
        unsafety,
        &[("src/storage/a.rs", "#[expect(unsafe_code)] // unsafe\n fn f() { \"unsafe\"; }")],
        &[],
    );
    expect(
        unsafety,
        &[("src/storage/map.rs", "unsafe { g() }"), ("src/server/alloc.rs", "unsafe impl X {}")],
        &[],
    );
}

#[test]
fn a_silent_module() {
    expect(
        essays,
        &[("src/a.rs", "use std::fmt;"), ("src/b.rs", ""), ("src/c.rs", "//!\nfn f() {}")],
        &["src/a.rs", "src/b.rs", "src/c.rs"],
    );
    let long = "// long: one table\n//! What this module is.\n";
    expect(essays, &[("src/a.rs", "//! What this module is.\n"), ("src/b.rs", long)], &[]);
}

#[test]
fn a_path_of_one_machine() {
    let judge = |line: &str| {
        let line = line.replace(' ', "");
        machine_paths(&[("notes.md".to_owned(), format!("first\n{line}").into_bytes())])
    };
    for bad in ["see/ /wo rk/x", "\"/ho me/ann/annals\"", "(/ro ot/x)", "`/Us ers/ann`=/Us ers/ann/x"] {
        let bad = bad.replacen("see/", "see:", 1);
        assert_eq!(judge(&bad).len(), 1, "{bad}");
        assert!(judge(&bad)[0].contains("notes.md:2"));
    }
    for good in ["net wo rk/x", "https://example.org/ho me/x", "a/ro ot/b", "/var/lib/annals", "~/wo rk/"] {
        let expected = usize::from(good.starts_with('~'));
        assert_eq!(judge(good).len(), expected, "{good}");
    }
    assert!(machine_paths(&[("x.bin".to_owned(), vec![0xFF, b'/', b'x'])]).is_empty());
}
