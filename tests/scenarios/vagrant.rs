//! `deploy/vagrant/Vagrantfile`, as Vagrant itself reads it. What VirtualBox is asked for is its version; Debian does not have it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sheath_tests::binaries;

const PROVIDERS: [&str; 2] = ["libvirt", "virtualbox"];

/// Where the Vagrantfile is.
fn deployment() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/vagrant")
}

/// What `vagrant validate` says, and whether it is content.
fn validate(dir: &Path, provider: &str) -> Result<String, String> {
    let mut vagrant = Command::new(binaries::enter_vagrant());
    vagrant.arg(dir).args(["env", "VAGRANT_CWD=/given", "VAGRANT_DOTFILE_PATH=/tmp/vagrant"]);
    vagrant.arg(format!("VAGRANT_DEFAULT_PROVIDER={provider}")).args(["vagrant", "validate"]);
    let output = vagrant.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    if output.status.success() { Ok(text) } else { Err(text) }
}

#[test]
fn the_file_is_right_for_both_providers() {
    for provider in PROVIDERS {
        let text = validate(&deployment(), provider).unwrap();
        assert!(text.contains("Vagrantfile validated successfully"), "{provider}: {text}");
    }
}

#[test]
fn a_setting_that_a_provider_does_not_have_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let right = fs::read_to_string(deployment().join("Vagrantfile")).unwrap();
    for provider in PROVIDERS {
        let wrong = right.replace(&format!("{provider}.memory"), &format!("{provider}.memry"));
        assert!(wrong != right, "{provider}: nothing is set");
        fs::write(dir.path().join("Vagrantfile"), wrong).unwrap();
        fs::copy(deployment().join("provision.sh"), dir.path().join("provision.sh")).unwrap();
        let text = validate(dir.path(), provider).unwrap_err();
        assert!(text.contains("shouldn't exist: memry"), "{provider}: {text}");
    }
}
