//! The kernel's side of a start: programs and maps loaded or taken over from an earlier agent, the policy in them, and
//! everything attached.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::capture::cgroups;
use crate::capture::error::CaptureError;
use crate::capture::kernel::events::Events;
use crate::capture::kernel::filesystems;
use crate::capture::kernel::held::HeldMaps;
use crate::capture::kernel::ids::WorkloadIds;
use crate::capture::kernel::maps::Maps;
use crate::capture::kernel::pins::{FreshPins, Pins};
use crate::capture::kernel::prepared::Prepared;
use crate::capture::kernel::programs::{self, Programs};
use crate::capture::kernel::steering::SteerLoader;
use crate::capture::kernel::targets::TargetPaths;
use crate::capture::root::CaptureRoot;
use crate::desired;

use super::Reconfiguration;
use super::rules::Rules;

/// What has been attached.
#[derive(Debug)]
pub struct Attached {
    pub maps: Arc<Maps>,
    pub programs: Programs,
    pub steer_loader: SteerLoader,
    pub rules: Rules,
    pub ids: Arc<WorkloadIds>,
    /// Where the cgroup v2 hierarchy is mounted.
    pub mount: PathBuf,
}

/// What this start has pinned, removed again with this value unless it is kept.
#[derive(Debug)]
pub struct Pinned {
    pins: Pins,
    fresh: Option<FreshPins>,
}

impl Pinned {
    /// The start has succeeded: its pins stay, and those of an agent with other maps go.
    ///
    /// # Errors
    /// If one of the latter cannot be removed.
    pub fn keep(self) -> Result<(), CaptureError> {
        if let Some(fresh) = self.fresh {
            fresh.keep();
        }
        self.pins
            .remove_others()
            .map_err(CaptureError::during("cannot remove the pins of an agent with other maps"))
    }
}

/// Attaches the programs, with the policy in their maps. Needs a tokio runtime.
///
/// # Errors
/// If the host lacks something, the kernel refuses something, or a workload selects the agent itself.
pub fn attach(
    prepared: Prepared,
    root: &CaptureRoot,
    wanted: &Reconfiguration,
) -> Result<(Attached, Events, Pinned), CaptureError> {
    let Prepared { pins, fresh, ids } = prepared;
    let pinned = Pinned { pins: pins.clone(), fresh };
    let tracefs = filesystems::ensure_tracefs()?;
    let mount = filesystems::cgroup_mount()?;
    refuse_own_cgroup(&wanted.workloads)?;
    let mut loaded = programs::load(&pins)?;
    let events = Events::new(loaded.take_events()?)
        .map_err(CaptureError::during("cannot wait for kernel events"))?;
    let open = CaptureError::during("cannot open the maps");
    let (maps, held) = open_maps(&pins).map_err(open)?;
    let rules = Rules::add_first(maps.clone(), wanted.policy.clone(), &wanted.workloads)
        .and_then(|rules| maps.forget_connections().map(|()| rules))
        .map_err(CaptureError::during("cannot write the policy into the maps"))?;
    let cgroup = root.directory(&mount);
    let paths = TargetPaths { mount: mount.clone(), cgroup, tracefs };
    let programs = loaded.attach(&held, &maps, paths)?;
    let steer_loader = SteerLoader::new(held);
    Ok((Attached { maps, programs, steer_loader, rules, ids, mount }, events, pinned))
}

fn open_maps(pins: &Pins) -> io::Result<(Arc<Maps>, Arc<HeldMaps>)> {
    Ok((Arc::new(Maps::open(pins)?), Arc::new(HeldMaps::open(pins)?)))
}

/// Refuses workloads that select the agent: one that captured itself would dial in circles.
///
/// # Errors
/// If one does, or the agent's own cgroup is not known.
pub fn refuse_own_cgroup(workloads: &[Arc<desired::Workload>]) -> Result<(), CaptureError> {
    let own = cgroups::own().map_err(CaptureError::during("cannot tell the agent's own cgroup"))?;
    match workloads.iter().find(|workload| cgroups::selects(workload, &own)) {
        None => Ok(()),
        Some(workload) => Err(CaptureError::SelectsAgent {
            workload: workload.name.clone(),
            cgroup: cgroups::shown(&own),
        }),
    }
}
