//! The compiled BPF object: its maps and programs, loaded into the kernel.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};

use super::maps::PINNED;
use super::pins::Pins;
use crate::capture::error::CaptureError;

/// The compiled programs; `cargo xtask build-ebpf` makes them.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sheath.bpf.o"));

/// Loads the object. With pins, maps that are pinned are taken over, and others are made and pinned; without, all of them go with
/// the object.
///
/// # Errors
/// If the kernel refuses a map.
pub fn load_object(pins: Option<&Pins>) -> Result<Ebpf, CaptureError> {
    let mptcp = u8::from(Path::new("/proc/sys/net/mptcp").is_dir());
    let mut loader = EbpfLoader::new();
    loader.override_global("MPTCP", &mptcp, true);
    if let Some(pins) = pins {
        for name in PINNED {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    loader.load(OBJECT).map_err(|error| CaptureError::Load(in_one_line(&error)))
}

/// Loads a program of the object.
///
/// # Errors
/// If the kernel's verifier refuses it, or the object does not have it.
pub fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), CaptureError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let loaded = match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        Program::TracePoint(program) => program.load(),
        _ => return Err(missing(name)),
    };
    loaded.map_err(|error| CaptureError::Load(format!("{name}: {}", in_one_line(&error))))
}

/// A descriptor of a loaded program.
///
/// # Errors
/// If it is not loaded, or no descriptor is left.
pub fn program_fd(ebpf: &Ebpf, name: &str) -> Result<OwnedFd, CaptureError> {
    let program = ebpf.program(name).ok_or_else(|| missing(name))?;
    let fd = program.fd().map_err(|error| CaptureError::Load(error.to_string()))?;
    fd.as_fd().try_clone_to_owned().map_err(|error| CaptureError::Load(error.to_string()))
}

/// The error for something that the object should have.
pub fn missing(name: &str) -> CaptureError {
    CaptureError::Load(format!("the BPF object has no `{name}`"))
}

/// An error with its causes. The verifier's log is long: it goes to the debug log.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    tracing::debug!("{text}");
    let said = text.split(". Verifier output").next().unwrap_or_default();
    said.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the program cannot be loaded")]
    struct Outer(#[source] io::Error);

    #[test]
    fn an_error_is_told_in_one_line_with_its_causes_and_without_the_verifiers_log() {
        let log = "refused. Verifier output: 0: R1=ctx()\n1: exit";
        let error = Outer(io::Error::other(log));
        assert_eq!(in_one_line(&error), "the program cannot be loaded: refused");
        let error = Outer(io::Error::other("first\nsecond"));
        assert_eq!(in_one_line(&error), "the program cannot be loaded: first");
    }
}
