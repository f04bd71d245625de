//! Takes a cluster down, whatever is left of it.

use anyhow::Result;

use super::cgroups::Cgroups;
use super::names;
use super::state::{Home, State};
use crate::pins;

/// Removes a cluster: its processes, and with them its namespaces and mounts; its agents' pins; its cgroups; its directory. Returns whether
/// there was anything.
///
/// # Errors
/// When something cannot be removed.
pub fn remove(name: &str) -> Result<bool> {
    names::check(name)?;
    let home = Home::lock()?;
    let (state, cgroups) = (home.cluster(name), Cgroups::of(name));
    let was_there = state.path().exists() || cgroups.exist();
    everything(name, &state, &cgroups)?;
    Ok(was_there)
}

/// Removes clusters whose owners have ended without having done so. Returns their names.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_orphans() -> Result<Vec<String>> {
    let home = Home::lock()?;
    let orphans: Vec<String> =
        home.clusters().into_iter().filter(|name| home.cluster(name).is_orphan()).collect();
    for name in &orphans {
        everything(name, &home.cluster(name), &Cgroups::of(name))?;
    }
    Ok(orphans)
}

/// For those who hold the lock.
pub fn everything(name: &str, state: &State, cgroups: &Cgroups) -> Result<()> {
    cgroups.kill("")?;
    for node in names::NODES {
        pins::remove(&names::instance(name, node))?;
    }
    cgroups.remove()?;
    state.remove()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio, id};

    use super::*;

    #[test]
    fn what_a_killed_run_has_left_is_removed_and_nothing_else() {
        let [orphan, other] = ["orphan", "other"].map(|kind| format!("{kind}-{}", id()));
        let home = Home::lock().unwrap();
        for name in [&orphan, &other] {
            home.cluster(name).create(Some(id())).unwrap();
            home.cluster(name).write("pki/ca.key", "secret").unwrap();
        }
        home.cluster(&orphan).write("owner", "4194999 17").unwrap();
        let cgroups = Cgroups::of(&orphan);
        cgroups.create("node-a").unwrap();
        let mut entrance = cgroups.entrance("node-a/kubelet").unwrap();
        let mut left = Command::new("sleep");
        left.arg("1000").stdin(Stdio::null());
        // SAFETY: between fork and exec the closure makes system calls on descriptors it owns; it neither allocates nor takes
        // a lock.
        unsafe { left.pre_exec(move || entrance.enter()) };
        let mut left = left.spawn().unwrap();
        assert_eq!(cgroups.all_processes(""), [left.id()]);
        drop(home);

        let removed = remove_orphans().unwrap();
        assert!(removed.contains(&orphan) && !removed.contains(&other), "{removed:?}");
        assert!(!left.wait().unwrap().success());
        let home = Home::lock().unwrap();
        assert!(!cgroups.exist() && !home.cluster(&orphan).path().exists());
        assert!(home.cluster(&other).path().exists());
        drop(home);
        assert!(remove(&other).unwrap());
        assert!(!remove(&other).unwrap());
    }
}
