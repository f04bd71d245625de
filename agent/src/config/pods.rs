//! Pods in the configuration.

use sheath_common::maps::{MAX_CGROUP_DEPTH, MAX_PODS};
use sheath_common::pod_cgroups::RootError;

use super::cgroup_paths::{CgroupPathError, check_captured};
use super::raw;
use crate::capture::{CaptureRoot, KubeletSetting, PodRoot, PodSettings, own_cgroup, shown_cgroup};
use crate::desired::{CgroupSelector, Desired, PodUid, Pods};

/// What is wrong with `capture.pods`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodsError {
    #[error(
        "capture.pods.root `{0}` must be the path of the cgroup that has all pods below it, as `/kubepods.slice` or `/kubepods`"
    )]
    Root(String),
    #[error(
        "capture.pods.root is `auto`, but the agent is in no pod of a kubelet that it could tell it from: its cgroup is {0}. Name the root: `/kubepods.slice`, or `/kubepods` where the kubelet's cgroupDriver is cgroupfs"
    )]
    NoPod(String),
    #[error("capture.pods.root `{0}` is too long, or too deep")]
    LongRoot(String),
    #[error(transparent)]
    Cgroup(#[from] CgroupPathError),
    #[error("capture.pods.plain: the pod {0} is also a workload")]
    PlainAndSelected(PodUid),
    #[error("capture.pods.plain names {0} pods; {MAX_PODS} are the most")]
    TooMany(usize),
}

/// What stands for the root that the agent's own pod is below.
const AUTO: &str = "auto";

/// The pods of a kubelet, and what is captured then, where nobody has written it: if nothing but pods is a workload (`are_alone`), the
/// cgroup that has them below it, so that the programs run before what others have attached to the root. The paths of pods have
/// up to two levels more than their root.
///
/// # Errors
/// If the root is no path below the root of the hierarchy, or lies outside of `capture.cgroup`.
pub fn settings(
    raw: &raw::Pods,
    mut capture: CaptureRoot,
    are_alone: bool,
) -> Result<(PodSettings, CaptureRoot), PodsError> {
    const LEVELS: usize = 2;
    let root = match raw.root.as_str() {
        AUTO => {
            let own = own_cgroup().unwrap_or_default();
            let root = PodRoot::above(&own).ok_or_else(|| PodsError::NoPod(shown_cgroup(&own)))?;
            // A kubelet below something else is one of several on this machine.
            if let (CaptureRoot::Auto, false, Some((above, _))) =
                (&capture, are_alone, root.as_str().rsplit_once('/'))
                && !above.is_empty()
            {
                capture = CaptureRoot::Below(above.to_owned());
            }
            root
        }
        text => PodRoot::new(text).map_err(|error| match error {
            RootError::Path | RootError::Slice => PodsError::Root(text.to_owned()),
            RootError::TooLong => PodsError::LongRoot(text.to_owned()),
        })?,
    };
    let text = root.as_str();
    if text.split('/').skip(1).count() + LEVELS > MAX_CGROUP_DEPTH as usize {
        return Err(PodsError::LongRoot(text.to_owned()));
    }
    // Pods lie below it in any case.
    if !matches!(&capture, CaptureRoot::Below(captured) if captured == text) {
        check_captured("capture.pods.root", text, &capture)?;
    }
    if are_alone && capture == CaptureRoot::Auto {
        capture = CaptureRoot::Pods(text.to_owned());
    }
    let count = raw.plain.as_ref().map_or(0, Vec::len);
    if count > MAX_PODS as usize {
        return Err(PodsError::TooMany(count));
    }
    let settings = PodSettings {
        root,
        unknown: raw.unknown,
        hold_host_network: raw.host_network,
        // Whose pods they are says another section.
        kubelet: KubeletSetting::None,
    };
    Ok((settings, capture))
}

/// # Errors
/// If a pod is to be left alone and is a workload.
pub fn check(desired: &Desired) -> Result<(), PodsError> {
    let Some(Pods { plain }) = &desired.pods else {
        return Ok(());
    };
    let both = desired.workloads.iter().find_map(|workload| match workload.cgroup {
        CgroupSelector::Pod(uid) => Some(uid).filter(|uid| plain.contains(uid)),
        CgroupSelector::Pattern(_) | CgroupSelector::Id(_) => None,
    });
    both.map_or(Ok(()), |uid| Err(PodsError::PlainAndSelected(uid)))
}

#[cfg(test)]
mod tests;
