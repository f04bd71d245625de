//! QEMU as a process, and what all machines have in common.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus};

use nix::sys::signal::Signal;

use super::Kernel;

/// How QEMU runs a machine's processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceleration {
    Kvm,
    /// In software, a thread for each processor.
    Emulated,
}

impl Acceleration {
    pub fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Emulated => "tcg,thread=multi",
        }
    }

    /// An emulated processor without what makes it slower: moves of single bytes, which are emulated one by one, and checks at
    /// each entry into the kernel.
    fn processor(self) -> &'static str {
        match self {
            Self::Kvm => "max",
            Self::Emulated => "max,-erms,-fsrm,-smap,-smep,-pku",
        }
    }

    /// By how much scenarios' limits are longer in such a machine.
    pub fn slowness(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Emulated => 15,
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Emulated => "emulated processors",
        }
    }
}

/// A QEMU process, killed when dropped.
pub struct Qemu(Child);

impl Qemu {
    /// # Panics
    /// When it is not there.
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().expect("qemu-system-x86_64"))
    }

    /// Its standard input, once.
    ///
    /// # Panics
    /// When it has none.
    pub fn stdin(&mut self) -> ChildStdin {
        self.0.stdin.take().expect("QEMU's standard input")
    }

    /// How it has ended, if it has.
    ///
    /// # Panics
    /// When that cannot be found out.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("waiting for QEMU")
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// QEMU with a kernel and nothing else. It dies with the thread that starts it.
pub fn command(kernel: &Kernel, accel: Acceleration, console: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"]);
    command.args(["-accel", accel.option(), "-cpu", accel.processor()]);
    command.arg("-kernel").arg(kernel.dir.join("vmlinuz"));
    command.arg("-initrd").arg(kernel.dir.join("initramfs"));
    command.arg("-serial").arg(format!("file:{}", console.display()));
    // SAFETY: between fork and exec one system call is made, without memory or locks.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
    command
}
