//! Generates the server's side of SPIRE's Delegated Identity API, from the very definition that the agent's client
//! comes from: the one in the sources of the crate `spire-api`. And of what the controller serves: the
//! client's side of identities, the server's side of the directory.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const SERVICE: &str = "spire/api/agent/delegatedidentity/v1/delegatedidentity.proto";

const HEALTH: &str = "grpc/health/v1/health.proto";

fn main() {
    // Another version of the crate is another definition.
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let include = package_dir("spire-api").join("spire-api-sdk/proto");
    // Without protoc, and so without anything that is not a crate.
    let definition = protox::compile([SERVICE], [&include])
        .unwrap_or_else(|error| panic!("{SERVICE} in {}: {error}", include.display()));
    tonic_prost_build::configure()
        .build_client(false)
        .include_file("spire.rs")
        .compile_fds(definition)
        .expect("Rust from the definition");
    controller();
    directory();
    health();
}

/// The client's side of the controller's API.
fn controller() {
    let definitions = Path::new("../agent/proto");
    println!("cargo::rerun-if-changed={}", definitions.display());
    let definition = protox::compile(["identities.proto"], [definitions])
        .unwrap_or_else(|error| panic!("the controller's API: {error}"));
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("controller.rs")
        .compile_fds(definition)
        .expect("Rust from the definition");
}

/// The server's side of the controller's directory.
fn directory() {
    let definitions = Path::new("../agent/proto");
    println!("cargo::rerun-if-changed={}", definitions.display());
    let definition = protox::compile(["directory.proto"], [definitions])
        .unwrap_or_else(|error| panic!("the controller's directory: {error}"));
    tonic_prost_build::configure()
        .build_client(false)
        .include_file("directory.rs")
        .compile_fds(definition)
        .expect("Rust from the definition");
}

/// The server's side of health checks.
fn health() {
    println!("cargo::rerun-if-changed=proto");
    let health = protox::compile([HEALTH], ["proto"]).unwrap_or_else(|error| panic!("{error}"));
    tonic_prost_build::configure()
        .build_client(false)
        .compile_fds(health)
        .expect("Rust from the definition");
}

/// Where cargo keeps the sources of a package that this workspace depends on.
fn package_dir(name: &str) -> PathBuf {
    let [cargo, target] = ["CARGO", "TARGET"].map(|name| env::var(name).expect("what cargo sets"));
    let output = Command::new(cargo)
        // Packages for other platforms need not be here.
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &target])
        .output()
        .expect("cargo metadata");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {problem}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON of cargo metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == name);
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = manifest.unwrap_or_else(|| panic!("no package {name}"));
    Path::new(manifest).parent().expect("a directory").to_owned()
}
