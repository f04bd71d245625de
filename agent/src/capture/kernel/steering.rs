//! The `sk_lookup` program. Each network namespace has one of its own, which knows the namespace's cookie.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::held::HeldMaps;
use super::pins::Pins;
use super::steer_program::{STEER, SteerProgram};
use crate::capture::error::CaptureError;
use crate::sys::bpf::{self, AttachType};

/// Loads the `sk_lookup` program for one namespace at a time.
#[derive(Debug)]
pub struct SteerLoader {
    program: SteerProgram,
}

/// The `sk_lookup` program of a namespace, in force.
#[derive(Debug)]
pub struct Steering {
    program_id: u32,
    link: OwnedFd,
    pin: PathBuf,
}

impl SteerLoader {
    /// # Errors
    /// If the program is not in the object, or the kernel refuses a map.
    pub fn new(held: Arc<HeldMaps>) -> Result<Self, CaptureError> {
        Ok(Self { program: SteerProgram::read(held)? })
    }

    fn pins(&self) -> &Pins {
        self.program.held().pins()
    }

    fn pin_of(&self, cookie: u64) -> PathBuf {
        self.pins().link(&format!("steer-{cookie}"))
    }

    /// Attaches the program to a namespace, or gives the pinned link that is there a new one, and pins it.
    ///
    /// # Errors
    /// If the kernel refuses the program or the link.
    pub fn attach(&self, namespace: BorrowedFd<'_>, cookie: u64) -> Result<Steering, CaptureError> {
        let load = |error: io::Error| CaptureError::Load(format!("{STEER}: {error}"));
        let program = self.program.load(cookie).map_err(load)?;
        let pin = self.pin_of(cookie);
        let attach = || match bpf::open_pin(&pin) {
            Ok(link) if bpf::link_info(link.as_fd())?.target != 0 => {
                bpf::update_link(link.as_fd(), program.as_fd())?;
                Ok(link)
            }
            _ => {
                let _ = fs::remove_file(&pin);
                self.pins().create()?;
                let link = bpf::create_link(program.as_fd(), namespace, AttachType::SkLookup)?;
                bpf::pin(link.as_fd(), &pin)?;
                Ok(link)
            }
        };
        let failed = |error| CaptureError::Attach {
            program: STEER,
            target: format!("network namespace {cookie}"),
            error,
        };
        let program_id = bpf::program_id(program.as_fd()).map_err(failed)?;
        let link = attach().map_err(failed)?;
        Ok(Steering { program_id, link, pin })
    }

    /// Cookies of the namespaces that a link is pinned for.
    ///
    /// # Errors
    /// If the directory of links cannot be read.
    pub fn pinned(&self) -> io::Result<Vec<u64>> {
        let names = self.pins().links()?;
        Ok(names.iter().filter_map(|name| name.strip_prefix("steer-")?.parse().ok()).collect())
    }

    /// Detaches a pinned link that nobody holds open.
    ///
    /// # Errors
    /// If the pin cannot be removed.
    pub fn detach(&self, cookie: u64) -> io::Result<()> {
        fs::remove_file(self.pin_of(cookie))
    }
}

impl Steering {
    /// True while the program, and no other, is attached to the namespace of this inode number.
    #[must_use]
    pub fn is_in_force(&self, inode: u64) -> bool {
        self.pin.exists()
            && bpf::link_info(self.link.as_fd()).is_ok_and(|info| {
                info.target == inode & 0xffff_ffff && info.program_id == self.program_id
            })
    }

    /// Detaches it: the namespace is no longer the agent's business.
    pub fn detach(self) {
        let _ = fs::remove_file(&self.pin);
    }
}
