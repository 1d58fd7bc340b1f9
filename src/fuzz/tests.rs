//! Every target over its corpus and 100,000 inputs made from it.
//!
//! A failure prints target, number and input. To keep it: the input as a file `fuzz/corpus/<target>/was-<what>`, which every
//! run begins with, and a test of the thing itself beside its code.

use std::{
    fmt::Write as _,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use super::{TARGETS, Target, mutate, seeds};

#[path = "../../tests/support/heap.rs"]
mod heap;

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// Inputs of each target.
const INPUTS: u64 = 100_000;
/// Numbers the inputs are made from; another one makes others.
const SEED: u64 = 0x0A77_A150_0000_0000;

fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name)
}

/// Names and bytes of a target's corpus, in order of name.
fn files(target: &Target) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(corpus(target)).unwrap_or_else(|error| panic!("{}: {error}", target.name));
    let read = |entry: fs::DirEntry| {
        (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap())
    };
    let mut files: Vec<_> = entries.map(|entry| read(entry.unwrap())).collect();
    files.sort();
    files
}

/// Whether it was accepted; panics with the input if the target does, or takes too much memory.
fn check(target: &Target, what: &str, input: &[u8]) -> bool {
    let most = target.memory + 256 * input.len();
    let outcome = catch_unwind(AssertUnwindSafe(|| heap::peak_of(|| (target.run)(input))));
    let wrong = match outcome {
        Ok((accepted, peak)) if peak <= most => return accepted,
        Ok((_, peak)) => format!("{peak} bytes of memory, at most {most} are allowed"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        }
    };
    let hex = input.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    panic!("target {}, {what}: {wrong}\ninput: {hex}", target.name);
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let files = files(target);
    for (file, bytes) in &files {
        check(target, file, bytes);
    }
    let seeds: Vec<Vec<u8>> = files.into_iter().map(|(_, bytes)| bytes).collect();
    let mut accepted = 0;
    for number in 0..INPUTS {
        let mut rng = mutate::Rng::new(SEED + number);
        let mut input = mutate::input(&mut rng, &seeds, target.message_at);
        if rng.below(8) != 0 {
            (target.repair)(&mut input);
        }
        accepted += u64::from(check(target, &format!("number {number}"), &input));
    }
    // Inputs that all end at the first check, or none, would test little.
    let share = accepted * 100 / INPUTS;
    assert!((1..100).contains(&share), "{accepted} of {INPUTS} were accepted");
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), run);
        }
    };
}

targets!(
    batch_header,
    payload_walk,
    stored_batch,
    segment_edges,
    packed_lz4,
    packed_zstd,
    names,
    produce_request,
    produce_stream_request,
    step_request,
    fetch_response,
    subscribe_response,
    requests,
    framing,
    call_timeout,
    error_details,
    root,
    ring_header,
    frame,
    snapshot,
    index,
    keys,
    segment_scan,
    journal_entries,
    recovered_snapshot,
    state_entries,
    state_image,
    config,
    position,
    lines,
    json_record,
    key_field,
    output_format,
);

#[test]
fn the_corpus_holds_every_seed() {
    let write = std::env::var_os("ANNALS_WRITE_CORPUS").is_some();
    let mut bytes = 0;
    for target in TARGETS {
        let directory = corpus(target);
        if write {
            fs::create_dir_all(&directory).unwrap();
        }
        for (name, seed) in seeds::of(target) {
            if write {
                fs::write(directory.join(&name), &seed).unwrap();
            }
            let file = fs::read(directory.join(&name)).unwrap_or_default();
            assert!(file == seed, "{}/{name} is not what its maker makes", target.name);
            bytes += seed.len();
        }
    }
    assert!(bytes < 1 << 20, "the corpus has {bytes} bytes");
}

#[test]
fn the_same_number_makes_the_same_input_and_others_make_others() {
    let seeds = [b"\x0a\x03abc\x10\x07".to_vec(), vec![0; 40]];
    let input = |number| mutate::input(&mut mutate::Rng::new(number), &seeds, 0);
    let inputs: std::collections::BTreeSet<Vec<u8>> = (0..1000).map(input).collect();
    assert!(inputs.len() > 800, "{} different inputs", inputs.len());
    assert!((0..1000).all(|number| input(number) == input(number)));
}

/// The runner must see what it is there for.
#[test]
fn panics_and_memory_are_reported_with_the_input() {
    let greedy = |input: &[u8]| vec![0_u8; usize::from(input[0]) << 16].len() > 1 << 30;
    let target = Target { run: greedy, ..TARGETS[0] };
    assert!(!check(&target, "little", &[1]));
    for input in [&[0xAB_u8][..], &[]] {
        let caught = catch_unwind(|| check(&target, "number 7", input)).unwrap_err();
        let text = caught.downcast_ref::<String>().unwrap();
        let hex = if input.is_empty() { "input: " } else { "input: ab" };
        assert!(text.contains("number 7") && text.ends_with(hex), "{text}");
    }
}

/// cargo-fuzz knows every target.
#[test]
fn the_fuzzer_has_a_binary_for_each() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
}
