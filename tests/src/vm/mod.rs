//! Whole machines under QEMU: what `cargo xtask vm` runs.
//!
//! ```text
//!   host-a 10.0.1.1, fd00::1:1          host-b 10.0.2.1, fd00::2:1
//!      eth0 ──── QEMU ──── Wire (the tap) ──── QEMU ──── eth0
//! ```
//! Both have the same root, and each writes to a copy of its own that is gone with it. A program of ours in each ([`protocol`])
//! runs what it is asked to, by way of a virtual serial port: whatever a machine does with its network, it can be asked.

pub mod acceleration;
pub mod channel;
pub mod machine;
pub mod protocol;
pub mod qemu;
pub mod readme;
pub mod results;
pub mod wire;

use std::path::PathBuf;

/// What machines are made of, as `cargo xtask vm` has made it.
#[derive(Clone)]
pub struct Images {
    /// Disk with Debian and systemd.
    pub root: PathBuf,
    /// Disk with what was built, mounted at [`PROGRAMS`].
    pub programs: PathBuf,
}

/// A kernel that machines boot.
#[derive(Clone)]
pub struct Kernel {
    /// As it was asked for: `6.1`, `newest`.
    pub name: String,
    /// Has `vmlinuz`, `initramfs`, `modules.ext4` and `version`.
    pub dir: PathBuf,
}

impl Kernel {
    /// Release, package, its version, suite.
    ///
    /// # Panics
    /// When the file that says so is not there.
    pub fn version(&self) -> [String; 4] {
        let text = std::fs::read_to_string(self.dir.join("version")).expect("the kernel's version");
        let mut words = text.split_whitespace().map(str::to_owned);
        [(); 4].map(|()| words.next().unwrap_or_default())
    }
}

/// Where a machine has [`Images::programs`].
pub const PROGRAMS: &str = "/opt/sheath";

/// Where a machine has what there is of the clone.
pub const CLONE: &str = "/opt/sheath/clone";
