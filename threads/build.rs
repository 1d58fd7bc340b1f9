//! Tells the included sources that they are in the hands of the checker: mistakes can be planted in them.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(annals_threads)");
    println!("cargo:rustc-cfg=annals_threads");
    println!("cargo:rerun-if-changed=build.rs");
}
