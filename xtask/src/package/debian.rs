//! The Debian package: Debian Policy, deb-control(5), deb(5).

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;

use super::contents::{self, Layout};
use super::linkage::Linkage;
use super::tree::{PROGRAM, Tree, read, set_mode};
use super::{Content, VERSION};
use crate::{command, workspace};

/// Programs that dpkg runs before and after it unpacks or removes files (deb-postinst(5) and its neighbours).
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// # Errors
/// When a file is missing, or dpkg-deb takes exception to the package.
pub fn write(content: &Content, output: &Path) -> Result<PathBuf> {
    let architecture = content.linkage.architecture.debian();
    let version = version(VERSION);
    let tree = Tree::new()?;
    contents::fill(&tree, &Layout::DEBIAN.below("usr"), content)?;
    tree.copy("deploy/debian/copyright", "usr/share/doc/sheath/copyright")?;
    tree.copy("deploy/debian/default", "etc/default/sheath")?;
    tree.make_dir("etc/sheath")?;
    describe(&tree, &control(&version, &content.linkage, tree.size()?))?;
    tree.finish(content.date)?;
    // What is in there may be secret.
    set_mode(&tree.path().join("etc/sheath"), 0o700)?;
    let package = output.join(format!("sheath_{version}_{architecture}.deb"));
    let seconds = content.date.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let mut build = command::plain("dpkg-deb");
    // With more threads xz writes other bytes.
    build.args(if content.quick { ["-Zgzip", "-z1"] } else { ["-Zxz", "-z9"] });
    build.args(["--root-owner-group", "--build"]);
    build.arg(tree.path()).arg(&package).env("DPKG_DEB_THREADS_MAX", "1");
    build.env("SOURCE_DATE_EPOCH", seconds.to_string());
    command::run(build.stdout(std::io::stderr()))?;
    Ok(package)
}

/// What dpkg is to know of the package: the directory `DEBIAN`, which is not installed.
fn describe(tree: &Tree, control: &str) -> Result<()> {
    // All files below /etc are the administrator's once they are there: an update asks before it changes one.
    let (conffiles, files): (Vec<String>, Vec<String>) =
        tree.files()?.into_iter().partition(|file| file.starts_with("etc/"));
    let conffiles: String = conffiles.iter().map(|file| format!("/{file}\n")).collect();
    let mut sums = command::plain("md5sum");
    let sums = command::output(sums.current_dir(tree.path()).args(&files))?;
    tree.write("DEBIAN/control", control)?;
    tree.write("DEBIAN/md5sums", sums)?;
    tree.write("DEBIAN/conffiles", conffiles)?;
    for script in SCRIPTS {
        let text = read(&workspace::root().join("deploy/debian").join(script))?;
        tree.write_as(PROGRAM, &format!("DEBIAN/{script}"), text)?;
    }
    Ok(())
}

/// In Debian's order of versions `~` comes before the end: what is before a release in Cargo's is so in Debian's.
fn version(cargo: &str) -> String {
    cargo.replacen('-', "~", 1).replace('-', ".")
}

fn control(version: &str, linkage: &Linkage, bytes: u64) -> String {
    let depends = match &linkage.depends[..] {
        [] => String::new(),
        packages => format!("Depends: {}\n", packages.join(", ")),
    };
    format!(
        "Package: sheath
Version: {version}
Architecture: {architecture}
Maintainer: The Sheath authors
Section: net
Priority: optional
Installed-Size: {kibibytes}
{depends}Recommends: systemd
Description: transparent mutual TLS for services
 BPF programs turn the TCP connections of chosen workloads (systemd units,
 cgroups, pods) to an agent on the same node, which wraps them in mutually
 authenticated TLS 1.3 with the workload's own SPIFFE certificate. Applications
 are not changed, and keep the addresses that they asked for. While the agent
 does not run, protected connections are refused.
 .
 It needs Linux 6.1 or later with BTF and cgroup v2.
",
        architecture = linkage.architecture.debian(),
        kibibytes = bytes.div_ceil(1024),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;

    #[test]
    fn a_static_agent_depends_on_nothing_and_another_on_its_libraries() {
        let mut linkage = Linkage { architecture: Architecture::Arm64, depends: Vec::new() };
        let text = control("1.0.0", &linkage, 1025);
        assert!(!text.contains("Depends"), "{text}");
        assert!(text.contains("\nArchitecture: arm64\n"), "{text}");
        assert!(text.contains("\nInstalled-Size: 2\nRecommends: systemd\n"), "{text}");
        linkage.depends = vec!["libc6 (>= 2.34)".to_owned(), "libgcc-s1".to_owned()];
        let text = control("1.0.0", &linkage, 1024);
        assert!(text.contains("\nDepends: libc6 (>= 2.34), libgcc-s1\nRecommends:"), "{text}");
    }

    #[test]
    fn versions_before_a_release_are_so_for_debian_as_well() {
        for (older, newer) in
            [("0.2.0-rc.1", "0.2.0"), ("0.2.0-rc.1", "0.2.0-rc.2"), ("0.2.0", "0.2.1-a-b")]
        {
            let mut compare = command::plain("dpkg");
            let (older, newer) = (version(older), version(newer));
            compare.args(["--compare-versions", &older, "lt", &newer]);
            assert!(compare.status().unwrap().success(), "{older} < {newer}");
        }
    }
}
