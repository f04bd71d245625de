//! The maps that the programs in force use, held open. A pin is a name, which any process with root's rights can remove. A
//! program that is loaded afterwards gets a new, empty map, and knows nothing of what the agent writes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::maps::{PINNED, WORKLOAD_IDS};
use super::pins::Pins;
use crate::capture::error::CaptureError;
use crate::sys::bpf::{self, map_info, program_by_id, program_info};

#[derive(Debug)]
pub struct HeldMaps {
    pins: Pins,
    maps: Vec<HeldMap>,
}

#[derive(Debug)]
struct HeldMap {
    name: &'static str,
    id: u32,
    fd: OwnedFd,
}

impl HeldMaps {
    /// Holds what is pinned now.
    ///
    /// # Errors
    /// If a map is not pinned.
    pub fn open(pins: &Pins) -> io::Result<Self> {
        let hold = |name: &&'static str| {
            let fd = bpf::open_pin(&pins.map(name))?;
            Ok(HeldMap { name, id: map_info(fd.as_fd())?.id, fd })
        };
        let maps = PINNED.iter().map(hold).collect::<io::Result<_>>()?;
        Ok(Self { pins: pins.clone(), maps })
    }

    /// Where they are pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// A map, by its name.
    pub fn map(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let map = self.maps.iter().find(|map| map.name == name)?;
        Some(map.fd.as_fd())
    }

    /// Puts back the pins that somebody has removed: what is loaded later finds its maps by them.
    pub fn keep_pinned(&self) {
        match self.put_back_pins() {
            Ok(maps) if maps.is_empty() => {}
            Ok(maps) => {
                tracing::warn!(?maps, "pins of maps removed behind the agent's back; put back");
            }
            Err(error) => {
                tracing::error!(%error, "pins of maps are missing, and cannot be put back");
            }
        }
    }

    /// Pins again what is pinned no longer, or where something else is pinned instead. Returns the names.
    fn put_back_pins(&self) -> io::Result<Vec<&'static str>> {
        let mut put_back = Vec::new();
        for map in &self.maps {
            let pin = self.pins.map(map.name);
            if bpf::open_pin(&pin).and_then(|fd| map_info(fd.as_fd())).is_ok_and(|i| i.id == map.id)
            {
                continue;
            }
            self.pins.create()?;
            if let Err(error) = fs::remove_file(&pin)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            bpf::pin(map.fd.as_fd(), &pin)?;
            put_back.push(map.name);
        }
        Ok(put_back)
    }

    /// Binds the table of workload numbers to a program, so that it lives as long as the program: sockets and entries may
    /// bear numbers for that long. No program reads the table.
    ///
    /// # Errors
    /// If the kernel has no memory for it.
    pub fn keep_ids_with(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut ids = self.maps.iter().filter(|map| map.name == WORKLOAD_IDS);
        ids.try_for_each(|map| bpf::bind_map(program, map.fd.as_fd()))
    }

    /// Checks that a program uses the maps that are held.
    ///
    /// # Errors
    /// If it uses another map of one of these names.
    pub fn check(&self, program: BorrowedFd<'_>) -> Result<(), CaptureError> {
        let look = CaptureError::during("cannot tell which maps a BPF program uses");
        match self.first_foreign(program).map_err(look)? {
            None => Ok(()),
            Some(name) => Err(CaptureError::OtherMap { name }),
        }
    }

    fn first_foreign(&self, program: BorrowedFd<'_>) -> io::Result<Option<String>> {
        for id in program_info(program)?.maps {
            if self.maps.iter().any(|map| map.id == id) {
                continue;
            }
            // Maps that are not shared have other names.
            let name = map_info(bpf::map_by_id(id)?.as_fd())?.name;
            if self.maps.iter().any(|map| map.name == name) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

/// Pins again the maps whose pins somebody has removed while no agent ran: the programs behind the links that are still
/// pinned use them. Returns the names.
///
/// # Errors
/// If the kernel does not tell which maps a program uses, or one cannot be pinned.
pub fn recover_pins(pins: &Pins) -> io::Result<Vec<&'static str>> {
    let mut lost: Vec<_> =
        PINNED.into_iter().filter(|name| bpf::open_pin(&pins.map(name)).is_err()).collect();
    let mut recovered = Vec::new();
    if lost.is_empty() {
        return Ok(recovered);
    }
    pins.create()?;
    let mut links = pins.links()?;
    // Links of cgroups first: their programs are of one generation.
    links.sort_by_key(|name| name.starts_with("steer-"));
    for link in links {
        let link = bpf::open_pin(&pins.link(&link))?;
        let program = program_by_id(bpf::link_info(link.as_fd())?.program_id)?;
        for id in program_info(program.as_fd())?.maps {
            let map = bpf::map_by_id(id)?;
            let found = map_info(map.as_fd())?.name;
            if let Some(at) = lost.iter().position(|name| *name == found) {
                let name = lost.swap_remove(at);
                bpf::pin(map.as_fd(), &pins.map(name))?;
                recovered.push(name);
            }
        }
    }
    Ok(recovered)
}
