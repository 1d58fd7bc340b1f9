//! A stock Python stub: code that is not ours, generated from `proto/`.

use std::{path::Path, process::Command};

/// Whether tests with programs that are not ours are to run; then a missing tool is a failure.
pub(crate) fn wanted() -> bool {
    std::env::var_os("ANNALS_EXTERNAL").is_some()
}

/// The Python with grpcio and its tools; see `.ci/run`.
pub(crate) fn python() -> String {
    std::env::var("ANNALS_PYTHON").unwrap_or_else(|_| "target/external/venv/bin/python".into())
}

/// Generates stubs into a folder that is to be the `PYTHONPATH`.
pub(crate) fn generate_stubs(into: &Path) {
    let protos =
        ["record", "producer", "consumer", "offsets", "topics"].map(|name| format!("annals/v1/{name}.proto"));
    let generated = Command::new(python())
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("proto"))
        .arg(format!("--python_out={}", into.display()))
        .arg(format!("--grpc_python_out={}", into.display()))
        .args(protos)
        .status()
        .expect("ANNALS_EXTERNAL=1 needs a Python with grpcio-tools; see .ci/run");
    assert!(generated.success(), "the stubs could not be generated");
}
