//! Generates Rust from definitions of gRPC services: the server's side of SPIRE's Delegated Identity API, from the very definition
//! that the agent's client comes from, the one in the sources of the crate `spire-api`; of health checks; and of the controller's
//! directory, both sides; and the client's side of the controller's identities.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The definitions of Sheath's own services.
const OWN: &str = "../agent/proto";

/// The side of a service that is generated.
enum Side {
    Client,
    Server,
    Both,
}

fn main() {
    // Another version of the crate is another definition.
    println!("cargo::rerun-if-changed=../Cargo.lock");
    for directory in ["proto", OWN] {
        println!("cargo::rerun-if-changed={directory}");
    }
    let spire = package_dir("spire-api").join("spire-api-sdk/proto");
    let delegated = "spire/api/agent/delegatedidentity/v1/delegatedidentity.proto";
    generate(&spire, delegated, Side::Server, "spire.rs");
    generate(Path::new("proto"), "grpc/health/v1/health.proto", Side::Server, "health.rs");
    generate(Path::new(OWN), "identities.proto", Side::Client, "controller.rs");
    generate(Path::new(OWN), "directory.proto", Side::Both, "directory.rs");
}

/// Without protoc, and so without anything that is not a crate.
fn generate(definitions: &Path, file: &str, side: Side, generated: &str) {
    let definition = protox::compile([file], [definitions])
        .unwrap_or_else(|error| panic!("{file} in {}: {error}", definitions.display()));
    tonic_prost_build::configure()
        .build_client(matches!(side, Side::Client | Side::Both))
        .build_server(matches!(side, Side::Server | Side::Both))
        .include_file(generated)
        .compile_fds(definition)
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
