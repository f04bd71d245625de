//! Whether the processor runs machines itself, or is emulated.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::Kernel;
use super::qemu::{Acceleration, Qemu, command};
use crate::wait;

/// How long a kernel may take by KVM until it says something. Emulated ones take less than ten times that.
const PROBE: Duration = Duration::from_secs(15);

/// What the initramfs says when `sheath.probe` is among the parameters.
const ALIVE: &str = "sheath-probe-alive";

/// Has a kernel boot by KVM. That there is a `/dev/kvm` says nothing: on some hosts machines hang.
///
/// # Panics
/// When QEMU is not there.
pub fn find(kernel: &Kernel) -> Acceleration {
    let is_there = Path::new("/dev/kvm").exists() && boots(kernel);
    if is_there { Acceleration::Kvm } else { Acceleration::Emulated }
}

fn boots(kernel: &Kernel) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let console = dir.path().join("console");
    let mut command = command(kernel, Acceleration::Kvm, &console);
    command.args(["-m", "512", "-no-reboot", "-append", "console=ttyS0 panic=-1 sheath.probe"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut qemu = Qemu::spawn(&mut command);
    let is_alive = || fs::read_to_string(&console).is_ok_and(|said| said.contains(ALIVE));
    let seen = wait::try_for(PROBE, || {
        if is_alive() {
            return Some(true);
        }
        qemu.ended().map(|_| is_alive())
    });
    seen == Some(true)
}
