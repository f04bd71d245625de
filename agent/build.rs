//! Puts the BPF object where `include_bytes!` finds it, and generates Rust from the definitions in `proto/`.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    copy_object(&manifest, &out);
    generate(&manifest.join("proto"));
}

fn copy_object(manifest: &Path, out: &Path) {
    let object = env::var_os("SHEATH_BPF_OBJECT")
        .map_or_else(|| manifest.join("../target/bpf/sheath.bpf.o"), PathBuf::from);
    println!("cargo::rerun-if-env-changed=SHEATH_BPF_OBJECT");
    println!("cargo::rerun-if-changed={}", object.display());
    if let Err(error) = fs::copy(&object, out.join("sheath.bpf.o")) {
        println!(
            "cargo::error=no BPF object at {}: {error}; run `cargo xtask build-ebpf` first",
            object.display()
        );
    }
}

/// All definitions become one file, `controller_api.rs`.
fn generate(definitions: &Path) {
    println!("cargo::rerun-if-changed={}", definitions.display());
    let found = fs::read_dir(definitions).map(|entries| {
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut found: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|name| name == "proto")).collect();
        found.sort();
        found
    });
    let generated = found.map_err(|error| error.to_string()).and_then(|found| {
        // Without protoc, and so without anything that is not a crate.
        let read = protox::compile(found, [definitions]).map_err(|error| error.to_string())?;
        tonic_prost_build::configure()
            // Shared by all streams that they are sent on.
            .bytes(".sheath.directory")
            .include_file("controller_api.rs")
            .compile_fds(read)
            .map_err(|error| error.to_string())
    });
    if let Err(error) = generated {
        println!("cargo::error={}: {}", definitions.display(), error.replace('\n', " "));
    }
}
