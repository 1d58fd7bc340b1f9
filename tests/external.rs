//! Programs that are not ours, against a server of ours: stock Python stubs.
//!
//! They run under `ANNALS_EXTERNAL=1` only, and then a missing tool is a failure. `ANNALS_PYTHON` names a Python with grpcio,
//! grpcio-tools, grpcio-reflection and grpcio-status; `.ci/run` makes one.

#![allow(clippy::unwrap_used, reason = "a test: what does not hold must fail it")]

use std::{path::Path, process::Command};

use annals::server::{Config, Flags, start};

#[path = "support/python.rs"]
mod python;

#[test]
fn a_stock_python_stub_does_the_main_job() {
    if !python::wanted() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().unwrap();
    python::generate_stubs(scratch.path());
    let data = scratch.path().join("data");
    let flags = Flags { data: Some(data.clone()), grpc: Some("127.0.0.1:0".into()), ..Flags::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(start(Config::load(&flags, &|_| None).unwrap())).unwrap();
    let ran = Command::new(python::python())
        .arg(root.join("tests/external/stub.py"))
        .arg(server.address().to_string())
        .arg(&data)
        .env("PYTHONPATH", scratch.path())
        .output()
        .unwrap();
    runtime.block_on(server.shutdown()).unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("does the main job"), "{out}\n{err}");
}

/// The documentation shows exactly the lines that were run.
#[test]
fn the_lines_in_the_documentation_are_the_lines_that_run() {
    let read = |path| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let pages = [
        ("tests/external/stub.py", "docs/clients.md", 4),
        ("tests/external/pipeline.py", "docs/exactly-once.md", 1),
    ];
    for (script, page, lines_shown) in pages {
        let (script, document) = (read(script), read(page));
        let mut shown = 0;
        for part in script.split("# --- docs: ").skip(1) {
            let (_, rest) = part.split_once('\n').unwrap();
            let (lines, _) = rest.split_once("# --- end").unwrap();
            assert!(document.contains(lines.trim_end()), "{page} does not show:\n{lines}");
            shown += 1;
        }
        assert_eq!(shown, lines_shown);
    }
}
