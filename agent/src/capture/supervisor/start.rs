//! The kernel's side of a start: programs and maps loaded or taken over from an earlier agent, the policy in them, and
//! everything attached.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheath_common::pod_cgroups::PodRules;

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
use crate::capture::pod_settings::{KubeletSetting, PodRoot, PodSettings};
use crate::capture::root::CaptureRoot;
use crate::desired::{self, CgroupSelector};
use crate::directory::Directory;
use crate::sys::netns::NetworkNamespace;

use super::Reconfiguration;
use super::kubelet::Kubelet;
use super::pods::PodRecords;
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
    pub pods: PodRecords,
    pub kubelet: Kubelet,
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
    pods: Option<PodSettings>,
    wanted: &Reconfiguration,
    directory: &Directory,
) -> Result<(Attached, Events, Pinned), CaptureError> {
    let Prepared { pins, fresh, ids, loaded, has_predecessor } = prepared;
    let pinned = Pinned { pins: pins.clone(), fresh };
    let tracefs = filesystems::ensure_tracefs()?;
    let mount = filesystems::cgroup_mount()?;
    refuse_own_cgroup(&wanted.workloads, pods.as_ref().map(|pods| &pods.root))?;
    let mut loaded = loaded.map_or_else(|| programs::load(&pins), Ok)?;
    let events = Events::new(loaded.take_events()?)
        .map_err(CaptureError::during("cannot wait for kernel events"))?;
    let open = CaptureError::during("cannot open the maps");
    let (maps, held) = open_maps(&pins).map_err(open)?;
    let rules = Rules::add_first(maps.clone(), wanted.policy.clone(), &wanted.workloads)
        .and_then(|rules| {
            // A predecessor has connections, and removes what is said of them with them. New ones come to it for now.
            match has_predecessor {
                true => {
                    maps.listeners.leave_others();
                    maps.clients.leave_others();
                }
                false => maps.forget_connections()?,
            }
            Ok(rules)
        })
        .map_err(CaptureError::during("cannot write the policy into the maps"))?;
    let has_probers = pods.as_ref().is_some_and(|pods| pods.kubelet != KubeletSetting::None);
    let kubelet = Kubelet::new(maps.clone(), mount.clone(), pods.clone());
    maps.directory
        .begin_with(directory)
        .map_err(CaptureError::during("cannot write the directory into the maps"))?;
    let pods = recognise_pods(&maps, &mount, pods, wanted)
        .map_err(CaptureError::during("cannot write into the maps what is known of pods"))?;
    let cgroup = root.directory(&mount);
    let paths = TargetPaths { mount: mount.clone(), cgroup, tracefs, has_probers };
    let programs = loaded.attach(&held, &maps, paths)?;
    let steer_loader = SteerLoader::new(held)?;
    let attached = Attached { maps, programs, steer_loader, rules, ids, mount, pods, kubelet };
    Ok((attached, events, pinned))
}

/// Tells the kernel how pods are recognised and what was decided about them, before programs are attached that ask. What they need to
/// know of pods that are workloads is told again with the workloads.
fn recognise_pods(
    maps: &Arc<Maps>,
    mount: &Path,
    settings: Option<PodSettings>,
    wanted: &Reconfiguration,
) -> io::Result<PodRecords> {
    let host = NetworkNamespace::own()?;
    let cookie = host.cookie()?;
    let rules = settings.as_ref().map_or(PodRules::NONE, |settings| settings.rules(cookie));
    let mut pods = PodRecords::new(maps.clone(), mount.to_owned(), settings, host.inode())?;
    let selected = wanted.workloads.iter().rev().filter_map(|workload| match workload.cgroup {
        CgroupSelector::Pod(uid) => Some((uid, workload.kernel_view())),
        CgroupSelector::Pattern(_) | CgroupSelector::Id(_) => None,
    });
    pods.decide(wanted.pods.clone(), selected.collect())?;
    maps.pods.set_rules(&rules)?;
    Ok(pods)
}

fn open_maps(pins: &Pins) -> io::Result<(Arc<Maps>, Arc<HeldMaps>)> {
    Ok((Arc::new(Maps::open(pins)?), Arc::new(HeldMaps::open(pins)?)))
}

/// Refuses workloads that select the agent: one that captured itself would dial in circles.
///
/// # Errors
/// If one does, or the agent's own cgroup is not known.
pub fn refuse_own_cgroup(
    workloads: &[Arc<desired::Workload>],
    pods: Option<&PodRoot>,
) -> Result<(), CaptureError> {
    let own = cgroups::own().map_err(CaptureError::during("cannot tell the agent's own cgroup"))?;
    match workloads.iter().find(|workload| cgroups::selects(workload, pods, &own)) {
        None => Ok(()),
        Some(workload) => Err(CaptureError::SelectsAgent {
            workload: workload.name.clone(),
            cgroup: cgroups::shown(&own),
        }),
    }
}
