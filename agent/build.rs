//! Puts the BPF object where `include_bytes!` finds it.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let object = env::var_os("SHEATH_BPF_OBJECT")
        .map_or_else(|| manifest.join("../target/bpf/sheath.bpf.o"), PathBuf::from);
    println!("cargo::rerun-if-env-changed=SHEATH_BPF_OBJECT");
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("sheath.bpf.o");
    if let Err(error) = fs::copy(&object, &out) {
        println!(
            "cargo::error=no BPF object at {}: {error}; run `cargo xtask build-ebpf` first",
            object.display()
        );
    }
}
