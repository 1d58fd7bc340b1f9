//! The body of every fuzzer here: the binary's own name says which target of `annals::fuzz` it feeds.

#![no_main]

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static NAME: OnceLock<String> = OnceLock::new();
    let name = NAME.get_or_init(|| {
        let path = std::env::current_exe().expect("a process knows its binary");
        path.file_stem().expect("it has a name").to_string_lossy().into_owned()
    });
    annals::fuzz::run(name, input);
});
