//! Cgroup paths in the configuration: from the cgroup v2 root, with or without a leading slash.

use sheath_common::maps::MAX_CGROUP_DEPTH;
use sheath_common::selector::PATTERN_LEN;

use crate::capture::CaptureRoot;

/// # Errors
/// If the text is not a path below the cgroup v2 root.
pub fn capture_root(text: &str) -> Result<CaptureRoot, String> {
    if text == "auto" {
        return Ok(CaptureRoot::Auto);
    }
    let path = absolute(text);
    if path == "/" || path.split('/').any(|part| part == "..") {
        return Err(format!(
            "capture.cgroup `{text}` must be `auto` or a path below the cgroup v2 root"
        ));
    }
    Ok(CaptureRoot::Below(path))
}

/// The cgroup of a service manager, like `/init.scope`. The root cgroup is refused: any process may be in it.
///
/// # Errors
/// If the text is not a path below the root, or lies outside of `capture.cgroup`.
pub fn activator(text: &str, capture: &CaptureRoot) -> Result<String, String> {
    let path = absolute(text);
    if !is_plain(&path) {
        return Err(format!(
            "inbound.activator `{text}` must be a path below the cgroup v2 root, as `/init.scope`"
        ));
    }
    check_captured("inbound.activator", &path, capture)?;
    Ok(path)
}

/// Brings a pattern to the form `/a/b*`.
///
/// # Errors
/// If the pattern is too long or too deep for the kernel, or lies outside of `capture.cgroup`.
pub fn pattern(text: &str, capture: &CaptureRoot) -> Result<String, String> {
    let pattern = absolute(text);
    if !is_plain(&pattern) {
        return Err(format!("select.cgroup `{pattern}` has an empty or dotted component"));
    }
    if pattern.split('/').skip(1).count() > MAX_CGROUP_DEPTH as usize {
        return Err(format!("select.cgroup `{pattern}` is deeper than {MAX_CGROUP_DEPTH} levels"));
    }
    if pattern.len() > PATTERN_LEN {
        return Err(format!("select.cgroup `{pattern}` is longer than {PATTERN_LEN} bytes"));
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

fn check_captured(key: &str, path: &str, capture: &CaptureRoot) -> Result<(), String> {
    match capture {
        CaptureRoot::Below(root) if !capture.covers(path) => Err(format!(
            "{key} `{path}` is not below capture.cgroup `{root}`, where the programs would never see it"
        )),
        _ => Ok(()),
    }
}
