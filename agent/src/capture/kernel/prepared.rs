//! What a start begins with: the pins, and the numbers of workloads, which everything else needs.

use std::io;
use std::sync::Arc;

use super::ids::WorkloadIds;
use super::maps::Maps;
use super::pins::{FreshPins, Pins};
use super::{filesystems, held};
use crate::capture::error::CaptureError;

/// The pins of an instance, ready to be used. Dropped, it removes what it has made.
#[derive(Debug)]
pub struct Prepared {
    pub(in crate::capture) pins: Pins,
    /// What it has made.
    pub(in crate::capture) fresh: Option<FreshPins>,
    pub(in crate::capture) ids: Arc<WorkloadIds>,
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
        Ok(Self { pins, fresh, ids })
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
