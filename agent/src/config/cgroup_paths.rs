//! Cgroup paths in the configuration: from the cgroup v2 root, with or without a leading slash.

use sheath_common::maps::MAX_CGROUP_DEPTH;
use sheath_common::selector::PATTERN_LEN;

use crate::capture::CaptureRoot;

/// What is wrong with a cgroup in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CgroupPathError {
    #[error("capture.cgroup `{0}` must be `auto` or a path below the cgroup v2 root")]
    Root(String),
    #[error(
        "inbound.activator `{0}` must be a path below the cgroup v2 root, as `/system.slice/NAME.socket`"
    )]
    Activator(String),
    #[error("select needs exactly one of `cgroup`, `cgroupId`, `systemdUnit` and `podUid`")]
    NotOneSelector,
    #[error("select.podUid needs capture.pods.root, below which pods are")]
    NoPods,
    #[error("select.systemdUnit `{0}` must name a unit that ends in `.service`")]
    Unit(String),
    #[error("select.cgroup `{0}` has an empty or dotted component")]
    Component(String),
    #[error("select.cgroup `{0}` is deeper than {MAX_CGROUP_DEPTH} levels")]
    TooDeep(String),
    #[error("select.cgroup `{0}` is longer than {PATTERN_LEN} bytes")]
    TooLong(String),
    #[error(
        "{key} `{path}` is not below capture.cgroup `{root}`, where the programs would never see it"
    )]
    NotCaptured { key: &'static str, path: String, root: String },
}

/// # Errors
/// If the text is not a path below the cgroup v2 root.
pub fn capture_root(text: &str) -> Result<CaptureRoot, CgroupPathError> {
    if text == "auto" {
        return Ok(CaptureRoot::Auto);
    }
    let path = absolute(text);
    if path == "/" || path.split('/').any(|part| part == "..") {
        return Err(CgroupPathError::Root(text.to_owned()));
    }
    Ok(CaptureRoot::Below(path))
}

/// The cgroup of a service manager, like `/system.slice/NAME.socket` or `/init.scope`. The root cgroup is refused: any process may be in it.
///
/// # Errors
/// If the text is not a path below the root, or lies outside of `capture.cgroup`.
pub fn activator(text: &str, capture: &CaptureRoot) -> Result<String, CgroupPathError> {
    let path = absolute(text);
    if !is_plain(&path) {
        return Err(CgroupPathError::Activator(text.to_owned()));
    }
    check_captured("inbound.activator", &path, capture)?;
    Ok(path)
}

/// A path below the root without wildcards, in the form `/a/b`.
pub fn plain(text: &str) -> Option<String> {
    let path = absolute(text);
    (is_plain(&path) && !path.contains(['*', '?'])).then_some(path)
}

/// Brings a pattern to the form `/a/b*`.
///
/// # Errors
/// If the pattern is too long or too deep for the kernel, or lies outside of `capture.cgroup`.
pub fn pattern(text: &str, capture: &CaptureRoot) -> Result<String, CgroupPathError> {
    let pattern = absolute(text);
    if !is_plain(&pattern) {
        return Err(CgroupPathError::Component(pattern));
    }
    if pattern.split('/').skip(1).count() > MAX_CGROUP_DEPTH as usize {
        return Err(CgroupPathError::TooDeep(pattern));
    }
    if pattern.len() > PATTERN_LEN {
        return Err(CgroupPathError::TooLong(pattern));
    }
    check_captured("select.cgroup", &pattern, capture)?;
    Ok(pattern)
}

fn absolute(text: &str) -> String {
    format!("/{}", text.trim_matches('/'))
}

/// False for the root, and for paths with empty or dotted components.
fn is_plain(path: &str) -> bool {
    !path.split('/').skip(1).any(|part| part.is_empty() || part == "." || part == "..")
}

/// # Errors
/// If a path lies outside of `capture.cgroup`.
pub fn check_captured(
    key: &'static str,
    path: &str,
    capture: &CaptureRoot,
) -> Result<(), CgroupPathError> {
    match capture {
        CaptureRoot::Below(root) if !capture.covers(path) => {
            let (path, root) = (path.to_owned(), root.clone());
            Err(CgroupPathError::NotCaptured { key, path, root })
        }
        _ => Ok(()),
    }
}
