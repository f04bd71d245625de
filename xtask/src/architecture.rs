//! Kinds of machines that Sheath is built for.

use std::env::consts::ARCH;

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// As Debian calls it (dpkg-architecture(1)).
    pub fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As uname(1) does, and Rust.
    pub fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Rust's target.
    pub fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.machine())
    }

    /// It is this machine's.
    pub fn is_host(self) -> bool {
        self.machine() == ARCH
    }

    /// What runs a program of such a machine on this one, if this one cannot itself.
    pub fn emulator(self) -> Option<String> {
        (!self.is_host()).then(|| format!("qemu-{}", self.machine()))
    }
}
