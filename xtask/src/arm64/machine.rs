//! A machine for arm64, whose processors QEMU emulates.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command;

/// How long it may run, on a machine that does other things as well.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// A kernel that panics starts again, which is an end here.
const PARAMETERS: &str = "console=ttyAMA0 loglevel=4 panic=-1 mitigations=off";

/// Killed when dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots a machine and passes on each line of its serial port, until its power is off.
///
/// # Errors
/// When QEMU is not there or fails, or the machine still runs after a time.
pub fn run(kernel: &Path, initramfs: &Path, mut hear: impl FnMut(&str)) -> Result<()> {
    let child = qemu(kernel, initramfs).spawn().context("cannot start qemu-system-aarch64")?;
    let mut qemu = Qemu(child);
    let serial = qemu.0.stdout.take().context("QEMU has no standard output")?;
    let lines = listen(serial);
    let end = Instant::now() + LIMIT;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => hear(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("the machine still runs after {LIMIT:?}"),
        }
    }
    let status = qemu.0.wait().context("cannot wait for QEMU")?;
    if !status.success() {
        bail!("QEMU has ended with {status}");
    }
    Ok(())
}

fn qemu(kernel: &Path, initramfs: &Path) -> Command {
    let mut qemu = command::plain("qemu-system-aarch64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.args(["-machine", "virt", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024"]);
    // By the architecture's own cipher, signing pointers takes most of the time.
    qemu.args(["-cpu", "max,pauth-impdef=on", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(kernel.join("vmlinuz")).arg("-initrd").arg(initramfs);
    qemu.args(["-append", PARAMETERS]).stdin(Stdio::null()).stdout(Stdio::piped());
    qemu
}

/// The lines that come from a serial port, whatever bytes are in them.
fn listen(serial: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if sender.send(line.trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_heard_without_their_ends_and_whatever_is_in_them() {
        let lines: Vec<String> = listen(&b"a\r\n\xff b\nc"[..]).iter().collect();
        assert_eq!(lines, ["a", "\u{fffd} b", "c"]);
    }
}
