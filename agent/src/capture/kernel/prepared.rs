//! What a start begins with: the pins, and the numbers of workloads, which everything else needs.

use std::io;
use std::sync::Arc;

use super::ids::WorkloadIds;
use super::maps::Maps;
use super::pins::{FreshPins, Pins};
use super::programs::{self, Loaded};
use super::{filesystems, held};
use crate::capture::error::CaptureError;

/// The pins of an instance, ready to be used. Dropped, it removes what it has made.
#[derive(Debug)]
pub struct Prepared {
    pub(in crate::capture) pins: Pins,
    /// What it has made.
    pub(in crate::capture) fresh: Option<FreshPins>,
    pub(in crate::capture) ids: Arc<WorkloadIds>,
    /// The programs, if they are loaded already.
    pub(in crate::capture) loaded: Option<Loaded>,
    /// Another agent still accepts and carries connections.
    pub(in crate::capture) has_predecessor: bool,
}

impl Prepared {
    /// Makes the pin directory of an instance, or takes over what is there.
    ///
    /// # Errors
    /// If what is there is not to be trusted, or is not this agent's.
    pub fn begin(instance: &str) -> Result<Self, CaptureError> {
        filesystems::ensure_bpffs()?;
        let pins = Pins::of(instance);
        let fresh = FreshPins::begin(&pins)?;
        if fresh.is_none() {
            take_over(&pins).map_err(CaptureError::during("cannot take over the pinned maps"))?;
        }
        let ids = Arc::new(WorkloadIds::open(&pins)?);
        Ok(Self { pins, fresh, ids, loaded: None, has_predecessor: false })
    }

    /// Loads the programs already now. Nothing is attached.
    ///
    /// # Errors
    /// If the kernel refuses one.
    pub fn load(&mut self) -> Result<(), CaptureError> {
        self.loaded = Some(programs::load(&self.pins)?);
        Ok(())
    }

    /// Says whether another agent still accepts and carries connections. Then what the maps say of them is left alone.
    pub fn set_predecessor(&mut self, is_there: bool) {
        self.has_predecessor = is_there;
    }

    /// The numbers of workloads.
    #[must_use]
    pub fn ids(&self) -> Arc<WorkloadIds> {
        self.ids.clone()
    }
}

/// Makes sure that what an earlier agent has pinned fits this one, before its programs are replaced.
fn take_over(pins: &Pins) -> io::Result<()> {
    let recovered = held::recover_pins(pins)?;
    if !recovered.is_empty() {
        tracing::warn!(maps = ?recovered, "pins of maps were removed while no agent ran; put back");
    }
    match Maps::open(pins) {
        // No program that is in force uses what is missing: it is made anew.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map(drop),
    }
}
