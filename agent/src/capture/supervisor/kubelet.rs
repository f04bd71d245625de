//! Follows the kubelet: its cgroup is told to the kernel, which lets its connections through to the ports of pods' probes.
//!
//! The kernel knows the path of the cgroup too. A service manager that starts the kubelet again makes a new cgroup there, and the kernel
//! takes that for the kubelet's at once, with or without an agent. Only a kubelet that moves elsewhere is not known before it is
//! found, which takes about a second.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sheath_common::counters::Counter;
use sheath_common::maps::MAX_PROBES;
use sheath_common::probe::MAX_PROBER_PATH;

use crate::capture::cgroups;
use crate::capture::kernel::maps::Maps;
use crate::capture::kubelet;
use crate::capture::pod_settings::{KubeletSetting, PodSettings};
use crate::sys::pidfd::PidFd;

/// Looking at all processes of a host is not free.
const PAUSE: Duration = Duration::from_millis(400);

/// The kubelet, and what the kernel knows of it.
#[derive(Debug)]
pub struct Kubelet {
    maps: Arc<Maps>,
    /// Where the cgroup v2 hierarchy is mounted.
    mount: PathBuf,
    /// `None` if there are no pods.
    settings: Option<PodSettings>,
    /// The process, where it was looked for.
    process: Option<(u32, PidFd)>,
    /// When it was last looked for.
    looked: Option<Instant>,
    /// Path and id of its cgroup, as the kernel knows them.
    path: Option<PathBuf>,
    id: Option<u64>,
    problem: Option<String>,
    /// How many of its connections could not be recorded, when that was last looked at.
    lost: Option<u64>,
}

/// What is known of the kubelet.
#[derive(Clone, Debug)]
pub struct KubeletView {
    pub pid: Option<u32>,
    pub path: Option<PathBuf>,
    pub id: Option<u64>,
    /// Other processes in its cgroup.
    pub others: Vec<String>,
    pub problem: Option<String>,
}

impl Kubelet {
    pub fn new(maps: Arc<Maps>, mount: PathBuf, settings: Option<PodSettings>) -> Self {
        let (process, looked, path, id, problem) = (None, None, None, None, None);
        Self { maps, mount, settings, process, looked, path, id, problem, lost: None }
    }

    /// Looks where it is now, and tells the kernel.
    pub fn update(&mut self) {
        let before = (self.path.clone(), self.id);
        let unseen = self.look().err();
        // Also where it is not known: what an earlier agent believed goes.
        let untold = self.tell().err().map(|error| error.to_string());
        let problem = unseen.or(untold);
        if problem != self.problem
            && let Some(problem) = &problem
        {
            tracing::warn!(%problem, "cannot tell where the kubelet is, or not tell the kernel");
        }
        self.problem = problem;
        if before != (self.path.clone(), self.id)
            && let (Some(path), Some(id)) = (&self.path, self.id)
        {
            let cgroup = cgroups::shown(path);
            tracing::info!(cgroup, id, "the kubelet's probes are let through to pods");
        }
    }

    /// # Errors
    /// Why it is not known where the kubelet is.
    fn look(&mut self) -> Result<(), String> {
        let Some(settings) = &self.settings else {
            return Ok(());
        };
        match &settings.kubelet {
            KubeletSetting::None => Ok(()),
            KubeletSetting::Cgroup(path) => {
                self.path = Some(path.clone());
                Ok(())
            }
            KubeletSetting::Auto => self.find(),
        }
    }

    /// # Errors
    /// If it cannot be found. Where it was before, it is expected again.
    fn find(&mut self) -> Result<(), String> {
        if let Some((pid, process)) = &self.process {
            let path = cgroups::of_process(&pid.to_string());
            if process.is_alive() {
                // It may have moved.
                self.path = Some(path.map_err(|error| error.to_string())?);
                return Ok(());
            }
            self.process = None;
        }
        if self.looked.is_some_and(|looked| looked.elapsed() < PAUSE) {
            return self.problem.clone().map_or(Ok(()), Err);
        }
        self.looked = Some(Instant::now());
        let Some(settings) = &self.settings else {
            return Ok(());
        };
        let found = kubelet::find(&settings.root).map_err(|error| error.to_string())?;
        let process = PidFd::open(found.pid).map_err(|error| error.to_string())?;
        (self.process, self.path) = (Some((found.pid, process)), Some(found.cgroup));
        Ok(())
    }

    /// The path first: what is made at it from then on, the kernel takes for the kubelet's by itself.
    fn tell(&mut self) -> io::Result<()> {
        let probes = &self.maps.probes;
        probes.set_path(self.path.as_deref().map(|path| path.as_os_str().as_bytes()))?;
        self.id = self.path.as_deref().and_then(|path| self.id_at(path));
        if let Some(id) = self.id {
            probes.add_prober(id)?;
        }
        let (mount, path, id) = (&self.mount, &self.path, self.id);
        probes.prune_probers(|other| {
            // It may have been made since.
            let is_there = || matches!(cgroups::path_of(mount, other), Ok(at) if at == *path);
            Some(other) == id || (path.is_some() && is_there())
        })
    }

    fn id_at(&self, path: &Path) -> Option<u64> {
        let metadata = fs::metadata(cgroups::join(&self.mount, path)).ok()?;
        metadata.is_dir().then(|| metadata.ino())
    }

    /// Removes what the kernel keeps of connections that are no more, and tells of those that it had no room for.
    ///
    /// # Errors
    /// If a map cannot be read or written.
    pub fn sweep(&mut self) -> io::Result<()> {
        let lost = self.maps.counted(Counter::ProbeLost)?;
        if let Some(before) = self.lost.replace(lost)
            && lost > before
        {
            tracing::warn!(
                probes = lost - before,
                "probes of the kubelet are refused for want of room: it has {MAX_PROBES} connections open"
            );
        }
        self.maps.probes.sweep()
    }

    /// `None` if nobody's probes are to be let through.
    pub fn view(&self) -> Option<KubeletView> {
        let settings = self.settings.as_ref()?;
        if settings.kubelet == KubeletSetting::None {
            return None;
        }
        let pid = self.process.as_ref().map(|(pid, _)| *pid);
        let others = |path: &Path| kubelet::others(&self.mount, path, pid).unwrap_or_default();
        // Where the process is not known, one of those that are there is the kubelet.
        let others = self.path.as_deref().filter(|_| pid.is_some()).map(others);
        let missing = match (&self.path, self.id) {
            (Some(path), None) => {
                Some(format!("there is no cgroup {}, where the kubelet is expected", cgroups::shown(path)))
            }
            (Some(path), Some(_)) if path.as_os_str().len() > MAX_PROBER_PATH => {
                Some("the path of the kubelet's cgroup is too long to be recognised when it is made anew".to_owned())
            }
            _ => None,
        };
        Some(KubeletView {
            pid,
            path: self.path.clone(),
            id: self.id,
            others: others.unwrap_or_default(),
            problem: self.problem.clone().or(missing),
        })
    }
}
