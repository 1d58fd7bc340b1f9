//! Compiles `annals/**/*.proto` without an outside `protoc`.
//!
//! Two outputs: the API (`annals.v1`: messages, client stubs and service traits, and the descriptor set with its
//! comments, for reflection) and what the server keeps on disk (`annals.internal.v1`: messages alone, never in the
//! descriptor set that is shown to callers).

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=annals");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    compile_api(&out)?;
    compile_internal()
}

/// Every `.proto` of one package's folder, sorted, so that the output does not depend on the file system.
fn protos_in(folder: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn compiler_for(folder: &str) -> Result<protox::Compiler> {
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(protos_in(folder)?)?;
    Ok(compiler)
}

fn compile_api(out: &Path) -> Result<()> {
    let compiler = compiler_for("annals/v1")?;
    fs::write(out.join("annals.v1.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn compile_internal() -> Result<()> {
    let compiler = compiler_for("annals/internal/v1")?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
