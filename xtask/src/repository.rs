//! Debian's archive, read by an apt of our own: its lists and its cache are below the user's cache, and nothing of this
//! machine is read but how it reaches the archive. apt verifies the archive's signatures by Debian's keyring, and packages
//! by the lists.

use std::fs;
use std::io::stderr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::architecture::Architecture;
use crate::command;

/// Where packages come from, as apt writes it. Another one by `SHEATH_DEBIAN_MIRROR`.
const MIRROR: &str = "http://deb.debian.org/debian";

/// Whose signatures count.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Settings of an apt that nobody else has settings for. The user's cache is closed to apt's own user.
const OWN: &str = "Dir::Etc::main \"/dev/null\";
Dir::Etc::parts \"/dev/null\";
Dir::Etc::sourceparts \"/dev/null\";
Dir::Etc::preferences \"/dev/null\";
Dir::Etc::preferencesparts \"/dev/null\";
APT::Sandbox::User \"root\";
";

/// One suite of the archive, for one kind of machine.
pub struct Repository {
    dir: PathBuf,
}

impl Repository {
    /// Fetches the lists of a suite. The machine need not be of this kind, nor know of it.
    ///
    /// # Errors
    /// When they cannot be had, or their signature is not Debian's.
    pub fn open(home: &Path, suite: &str, architecture: Architecture) -> Result<Self> {
        let architecture = architecture.debian();
        let repository = Self { dir: home.join("apt").join(format!("{suite}-{architecture}")) };
        for dir in ["etc", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(repository.dir.join(dir))
                .context("cannot create apt's directory")?;
        }
        let kind = format!(
            "APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n"
        );
        let settings = format!("{OWN}{kind}{}", reach()?);
        fs::write(repository.dir.join("etc/sources.list"), source(suite)?)
            .and_then(|()| fs::write(repository.dir.join("etc/apt.conf"), settings))
            .and_then(|()| fs::write(repository.dir.join("state/status"), ""))
            .context("cannot write apt's sources")?;
        command::run(repository.apt("apt-get").arg("update"))
            .with_context(|| format!("cannot get Debian's list of packages of {suite}"))?;
        Ok(repository)
    }

    /// Version of a package, and the names in its `Depends`, without versions and alternatives.
    ///
    /// # Errors
    /// When there is no such package.
    pub fn describe(&self, package: &str) -> Result<(String, Vec<String>)> {
        let mut show = self.apt("apt-cache");
        let text = command::output(
            show.args(["show", "--no-all-versions", package]).stdout(Stdio::piped()),
        )?;
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let version = field("Version").with_context(|| format!("no package {package}"))?;
        Ok((version.to_owned(), names(field("Depends").unwrap_or_default())))
    }

    /// Fetches packages into a directory and unpacks them there, without running anything of theirs. Returns it.
    ///
    /// # Errors
    /// When a package cannot be had, or is not what the list says.
    pub fn unpack(&self, packages: &[&str], dir: &Path) -> Result<PathBuf> {
        let (files, tree) = (dir.join("packages"), dir.join("tree"));
        for dir in [&files, &tree] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        command::run(self.apt("apt-get").arg("download").args(packages).current_dir(&files))?;
        for file in fs::read_dir(&files).context("cannot read the packages")? {
            let mut dpkg = command::plain("dpkg-deb");
            command::run(dpkg.arg("--extract").arg(file?.path()).arg(&tree))?;
        }
        fs::remove_dir_all(&files).context("cannot remove the packages")?;
        Ok(tree)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = command::plain(program);
        apt.env("APT_CONFIG", self.dir.join("etc/apt.conf"));
        let dir = |name: &str| self.dir.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", dir("etc/sources.list")),
            format!("Dir::State={}", dir("state")),
            format!("Dir::State::status={}", dir("state/status")),
            format!("Dir::Cache={}", dir("cache")),
        ] {
            apt.args(["-o", &option]);
        }
        if program == "apt-get" {
            apt.arg("-qq");
        }
        apt.stdin(Stdio::null()).stdout(stderr());
        apt
    }
}

/// The line of apt's sources for a suite.
///
/// # Errors
/// Without Debian's keyring.
pub fn source(suite: &str) -> Result<String> {
    ensure!(Path::new(KEYRING).exists(), "no {KEYRING}: install debian-archive-keyring");
    let mirror = std::env::var("SHEATH_DEBIAN_MIRROR").unwrap_or_else(|_| MIRROR.to_owned());
    // What is fixed between two releases is in an archive beside the other.
    let archive = if suite.ends_with("-security") { mirror + "-security" } else { mirror };
    Ok(format!("deb [signed-by={KEYRING}] {archive} {suite} main\n"))
}

/// How this machine's apt reaches the archive: proxies, and what a mirror of its own asks for.
///
/// # Errors
/// When there is no apt.
pub fn reach() -> Result<String> {
    let dump = command::output(command::plain("apt-config").arg("dump").stdout(Stdio::piped()))?;
    Ok(reaching(&dump))
}

/// The lines of `apt-config dump` about fetching. What is fetched beside packages (`IndexTargets`) is not among them, nor is
/// what would let signatures be missing.
fn reaching(dump: &str) -> String {
    const OTHER: [&str; 3] = ["Acquire::IndexTargets", "Acquire::Changelogs", "Acquire::Allow"];
    let is_it = |line: &&str| {
        line.starts_with("Acquire::") && !OTHER.iter().any(|other| line.starts_with(other))
    };
    dump.lines().filter(is_it).map(|line| format!("{line}\n")).collect()
}

/// Names in a field of dependencies: the first of each choice.
fn names(field: &str) -> Vec<String> {
    let first =
        |clause: &str| clause.split(['|', '(', ':']).next().unwrap_or_default().trim().to_owned();
    field.split(',').map(first).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_out_of_dependencies() {
        let field = "linux-image-6.1.0-9-cloud-amd64 (= 6.1.27-1), kmod, a:any | b (>> 1)";
        assert_eq!(names(field), ["linux-image-6.1.0-9-cloud-amd64", "kmod", "a"]);
        assert!(names("").is_empty());
    }

    #[test]
    fn a_machine_that_takes_what_is_not_signed_does_not_decide_for_us() {
        let dump = "APT \"\";\nAcquire \"\";\nAcquire::AllowInsecureRepositories \"1\";\n\
            Acquire::http::Proxy \"http://proxy:3128\";\nAcquire::IndexTargets::deb::DEP-11 \"\";\n\
            Acquire::Languages:: \"none\";\nDPkg \"\";\n";
        let expected =
            "Acquire::http::Proxy \"http://proxy:3128\";\nAcquire::Languages:: \"none\";\n";
        assert_eq!(reaching(dump), expected);
    }
}
