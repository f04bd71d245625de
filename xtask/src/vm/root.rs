//! The root of all machines: a small Debian with systemd, made once by mmdebstrap.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use super::disk::{self, Use};
use super::units::{DISABLED, FILES, LINKS, MASKED};
use crate::{cache, command, console, repository};

/// The suite of Debian. Its systemd does all that units can ask for (`RestrictNetworkInterfaces=` takes a BPF framework,
/// which that of Debian 12 is built without), and what is built on Debian 12 runs on it.
const SUITE: &str = "trixie";

/// Beside what Debian calls essential: a service manager with user sessions, what the scenarios run, and their tools.
const PACKAGES: [&str; 15] = [
    "curl",
    "dbus",
    "dbus-user-session",
    "iproute2",
    "kmod",
    "libpam-systemd",
    "nftables",
    "nginx-light",
    "openssl",
    "passwd",
    "procps",
    "redis-server",
    "redis-tools",
    "systemd",
    "systemd-sysv",
];

/// What nobody reads in a machine.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"];

/// A user for user sessions.
const FINISH: &str = "chroot \"$1\" useradd --create-home --uid 1000 --shell /bin/bash user";

/// What a root is made of.
pub struct Recipe<'a> {
    /// The suite of Debian.
    pub suite: &'a str,
    /// Beside what Debian calls essential.
    pub packages: &'a [&'a str],
    /// Run by a shell when the packages are installed; `$1` is the root.
    pub finish: &'a str,
}

/// The root of all machines, before it has what the tests add.
pub const MACHINE: Recipe = Recipe { suite: SUITE, packages: &PACKAGES, finish: FINISH };

/// Sees to it that there is a disk with the root. Returns it.
///
/// # Errors
/// When packages cannot be had, or mmdebstrap fails.
pub fn ensure(home: &Path) -> Result<PathBuf> {
    let dir = home.join(format!("root-{}", key()));
    let image = dir.join("root.ext4");
    if dir.exists() {
        return Ok(image);
    }
    console::step("the machines' root, from Debian packages", || {
        cache::made(&dir, |dir| {
            let tree = dir.join("tree");
            bootstrap(&MACHINE, &tree, &dir.join("apt.conf"))?;
            furnish(&tree)?;
            disk::write(&tree, &dir.join("root.ext4"), Use::Root)?;
            fs::remove_dir_all(&tree).context("cannot remove the root's files")
        })
    })?;
    Ok(image)
}

/// What stands for the recipe.
fn key() -> String {
    let mut parts = vec!["1", SUITE, FINISH];
    parts.extend(PACKAGES.iter().chain(&LEFT_OUT).chain(quiet()));
    parts.extend(FILES.iter().chain(&LINKS).flat_map(|(path, content)| [*path, *content]));
    cache::digest(&parts)
}

/// The units that no machine starts by itself, for keys of recipes.
pub fn quiet<'a>() -> impl Iterator<Item = &'a &'a str> {
    DISABLED.iter().chain(&MASKED)
}

/// Makes a root in a new directory. `settings` is a file for apt's.
///
/// # Errors
/// When packages cannot be had, or mmdebstrap fails.
pub fn bootstrap(recipe: &Recipe, tree: &Path, settings: &Path) -> Result<()> {
    // The directory is closed to apt's own user.
    let text = format!(
        "{}APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\n",
        repository::reach()?
    );
    fs::write(settings, text).context("cannot write apt's settings")?;
    // What it mounts is mounted for it alone.
    let mut mmdebstrap = command::plain("unshare");
    mmdebstrap.args(["--mount", "--propagation", "private", "mmdebstrap", "--quiet"]);
    mmdebstrap.args(["--mode=root", "--variant=essential", "--format=directory"]);
    mmdebstrap.arg("--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr");
    mmdebstrap.arg(format!("--include={}", recipe.packages.join(",")));
    mmdebstrap.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    mmdebstrap.arg(format!("--aptopt={}", settings.display()));
    mmdebstrap.arg(format!("--customize-hook={}", recipe.finish));
    let source = repository::source(recipe.suite)?;
    mmdebstrap.arg(recipe.suite).arg(tree).arg(source.trim());
    mmdebstrap.env("DEBIAN_FRONTEND", "noninteractive");
    // What is said of each package; errors are not among that.
    mmdebstrap.stdin(Stdio::null()).stdout(Stdio::null());
    command::run(&mut mmdebstrap)
}

/// Adds what makes it a machine of the tests.
fn furnish(tree: &Path) -> Result<()> {
    for dir in ["/usr/lib/modules", "/opt/sheath"] {
        fs::create_dir_all(place(tree, dir)).with_context(|| format!("cannot create {dir}"))?;
    }
    add(tree, &FILES, &LINKS)
}

/// Adds files (path and content) and links (path and where it leads). Services that its packages enable are left to whoever wants
/// them, and slow ones are masked.
///
/// # Errors
/// When something cannot be written.
pub fn add(tree: &Path, files: &[(&str, &str)], links: &[(&str, &str)]) -> Result<()> {
    for unit in DISABLED {
        for wants in ["multi-user.target.wants", "sockets.target.wants", "timers.target.wants"] {
            let _ = fs::remove_file(place(tree, "/etc/systemd/system").join(wants).join(unit));
        }
    }
    for (path, content) in files {
        write(&place(tree, path), content)?;
    }
    let masks = MASKED.map(|unit| format!("/etc/systemd/system/{unit}"));
    let masks = masks.iter().map(|link| (link.as_str(), "/dev/null"));
    for (link, target) in links.iter().copied().chain(masks) {
        let link = place(tree, link);
        make_parent(&link)?;
        let _ = fs::remove_file(&link);
        symlink(target, &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    // Newer than /usr: there is nothing to be done at a first boot (systemd-update-done.service(8)).
    for stamp in ["/etc/.updated", "/var/.updated"] {
        write(&place(tree, stamp), "")?;
    }
    Ok(())
}

fn place(tree: &Path, path: &str) -> PathBuf {
    tree.join(path.trim_start_matches('/'))
}

fn write(path: &Path, content: &str) -> Result<()> {
    make_parent(path)?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn make_parent(path: &Path) -> Result<()> {
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .with_context(|| format!("cannot create the directory of {}", path.display()))
}
