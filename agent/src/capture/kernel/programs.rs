//! The programs that run for cgroups: attached through pinned links, taken over from an earlier agent, and repaired.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};

use super::held::HeldMaps;
use super::maps::Maps;
use super::object::{load_object, load_program, missing, program_fd};
use super::pins::Pins;
use super::steer_program::STEER;
use super::targets::{Hook, TargetPaths, Targets, cgroup_id};
use crate::capture::error::CaptureError;
use crate::sys::bpf::{self, AttachType};

/// The programs, the name their links are pinned under, and their hooks. In this order: what recognises new
/// workloads first, what turns connections to the agent last, when everything they then need is in place. They are pinned in this
/// order too: units assert the last one (README.md, "First configuration").
const PROGRAMS: [(&str, &str, Hook); 16] = [
    ("cgroup_created", "cgroup_mkdir", Hook::Tracepoint("cgroup_mkdir")),
    ("cgroup_removed", "cgroup_rmdir", Hook::Tracepoint("cgroup_rmdir")),
    ("cgroup_populated", "cgroup_notify_populated", Hook::Tracepoint("cgroup_notify_populated")),
    ("socket_created", "sock_create", Hook::Root(AttachType::CgroupInetSockCreate)),
    ("prober_events", "prober_sock_ops", Hook::Probers(AttachType::CgroupSockOps)),
    ("prober_connect_v4", "prober_connect4", Hook::Probers(AttachType::CgroupInet4Connect)),
    ("prober_connect_v6", "prober_connect6", Hook::Probers(AttachType::CgroupInet6Connect)),
    ("egress_guard", "egress", Hook::Cgroup(AttachType::CgroupInetEgress)),
    ("ingress_guard", "ingress", Hook::Cgroup(AttachType::CgroupInetIngress)),
    ("socket_events", "sock_ops", Hook::Cgroup(AttachType::CgroupSockOps)),
    ("peername_v4", "getpeername4", Hook::Cgroup(AttachType::CgroupInet4GetPeername)),
    ("peername_v6", "getpeername6", Hook::Cgroup(AttachType::CgroupInet6GetPeername)),
    ("sockname_v4", "getsockname4", Hook::Cgroup(AttachType::CgroupInet4GetSockname)),
    ("sockname_v6", "getsockname6", Hook::Cgroup(AttachType::CgroupInet6GetSockname)),
    ("connect_v4", "connect4", Hook::Cgroup(AttachType::CgroupInet4Connect)),
    ("connect_v6", "connect6", Hook::Cgroup(AttachType::CgroupInet6Connect)),
];

/// The object's maps and programs, loaded into the kernel. The programs are verified, and nothing is attached.
pub struct Loaded {
    ebpf: Ebpf,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

/// Loads maps (those that are pinned already are taken over) and programs.
///
/// # Errors
/// If the kernel refuses one of them.
pub fn load(pins: &Pins) -> Result<Loaded, CaptureError> {
    let mut ebpf = load_object(Some(pins))?;
    for (name, _, _) in PROGRAMS {
        load_program(&mut ebpf, name)?;
    }
    Ok(Loaded { ebpf })
}

/// Has the kernel's verifier look at every program, that for namespaces too, with maps that are gone afterwards. Returns how many
/// there are. What is pinned and in force stays as it is.
///
/// # Errors
/// If the kernel refuses one, or a map.
pub fn try_out() -> Result<usize, CaptureError> {
    let mut ebpf = load_object(None)?;
    let names = PROGRAMS.map(|(name, _, _)| name);
    let all = names.iter().chain(&[STEER]);
    all.clone().try_for_each(|name| load_program(&mut ebpf, name))?;
    Ok(all.count())
}

impl Loaded {
    /// The ring buffer of events.
    ///
    /// # Errors
    /// If it has been taken already.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, CaptureError> {
        let map = self.ebpf.take_map("EVENTS").ok_or_else(|| missing("EVENTS"))?;
        RingBuf::try_from(map).map_err(|error| CaptureError::Load(error.to_string()))
    }

    /// Attaches all programs, or none, but for those that the kubelet's probes need, and tells the kernel which cgroup they cover.
    /// Links that are pinned are given the new programs in place. Nothing new is pinned yet: should a later step of the start fail,
    /// the links go with this value.
    ///
    /// # Errors
    /// If there is no cgroup to attach to, the kernel refuses a program, or a program uses another map than the agent's.
    pub fn attach(
        self,
        held: &Arc<HeldMaps>,
        maps: &Arc<Maps>,
        paths: TargetPaths,
    ) -> Result<Programs, CaptureError> {
        let targets = Targets::open(paths)?;
        let mut attached = Vec::new();
        for (name, pin, hook) in PROGRAMS {
            let pin = held.pins().link(pin);
            if !targets.needs(hook) {
                // Another configuration may have wanted it.
                let _ = fs::remove_file(pin);
                continue;
            }
            let program = program_fd(&self.ebpf, name)?;
            held.check(program.as_fd())?;
            held.keep_ids_with(program.as_fd())
                .map_err(CaptureError::during("cannot bind a map to a BPF program"))?;
            let result = AttachedProgram::new(name, hook, program, pin, &targets);
            attached.push(result.map_err(|error| CaptureError::Attach {
                program: name,
                target: targets.shown(hook),
                error,
            })?);
        }
        let (held, maps) = (held.clone(), maps.clone());
        let programs = Programs { held, maps, targets, attached, is_gone: false };
        programs.tell_covered();
        Ok(programs)
    }
}

/// The programs that run for cgroups, loaded and attached.
#[derive(Debug)]
pub struct Programs {
    held: Arc<HeldMaps>,
    maps: Arc<Maps>,
    targets: Targets,
    attached: Vec<AttachedProgram>,
    /// The cgroup to capture is missing, and that has been logged.
    is_gone: bool,
}

/// A program as it was found.
#[derive(Clone, Debug)]
pub struct FoundProgram {
    pub name: &'static str,
    pub hook: Hook,
    /// Where it attaches, for people.
    pub target: String,
    /// The kernel says that it runs.
    pub is_in_force: bool,
}

impl Programs {
    /// Pins every link, so that it outlives the agent.
    ///
    /// # Errors
    /// If one cannot be pinned; those before it are.
    pub fn pin(&self) -> io::Result<()> {
        self.attached.iter().try_for_each(AttachedProgram::pin)
    }

    /// Attaches to the cgroup that has the path now, if it has been removed and made anew.
    pub fn follow(&mut self) {
        if self.targets.follow() {
            tracing::warn!(
                cgroup = %self.targets.path().display(),
                "capture.cgroup has been removed and made anew; attaching to the new one"
            );
            self.check_and_repair();
        }
    }

    /// Looks at every program, puts back what somebody has taken away, and tells what it has found.
    pub fn check_and_repair(&mut self) -> Vec<FoundProgram> {
        self.held.keep_pinned();
        let is_gone = self.is_target_gone();
        let mut found = Vec::new();
        for attached in &mut self.attached {
            let is_in_force = attached.is_in_force(self.targets.cgroup());
            found.push(FoundProgram {
                name: attached.name,
                hook: attached.hook,
                target: self.targets.shown(attached.hook),
                is_in_force,
            });
            let has_nowhere_to_attach = is_gone && matches!(attached.hook, Hook::Cgroup(_));
            if has_nowhere_to_attach || (is_in_force && attached.pin.exists()) {
                continue;
            }
            // Refused, and that has been said: perhaps what was in the way is gone.
            if attached.link.is_none() {
                let _ = attached.repair(&self.targets, self.held.pins());
                continue;
            }
            tracing::warn!(
                program = attached.name,
                observed = is_in_force,
                "program or pin removed behind the agent's back; putting it back"
            );
            if let Err(error) = attached.repair(&self.targets, self.held.pins()) {
                tracing::error!(program = attached.name, %error, "program not attached again");
            }
        }
        self.tell_covered();
        found
    }

    /// True, and said once, while there is no cgroup to attach to.
    fn is_target_gone(&mut self) -> bool {
        let is_gone = !self.targets.path().exists();
        if is_gone && !self.is_gone {
            tracing::warn!(
                cgroup = %self.targets.path().display(),
                "capture.cgroup has been removed; workloads in a new one get no TCP socket until the programs are attached to it"
            );
        }
        self.is_gone = is_gone;
        is_gone
    }

    /// Tells the kernel which cgroup is covered by all programs: outside of it workloads get no sockets.
    fn tell_covered(&self) {
        if self.all_in_force_for(self.targets.cgroup())
            && let Ok(cgroup) = cgroup_id(self.targets.cgroup())
            && let Err(error) = self.maps.set_capture(cgroup)
        {
            tracing::error!(%error, "the kernel does not know which cgroup is captured; workloads get no TCP sockets");
        }
    }

    /// True if all programs run for the cgroup of a directory.
    #[must_use]
    pub fn cover(&self, directory: &Path) -> bool {
        File::open(directory).is_ok_and(|cgroup| self.all_in_force_for(&cgroup))
    }

    fn all_in_force_for(&self, cgroup: &File) -> bool {
        let are_for_workloads =
            |attached: &&AttachedProgram| !matches!(attached.hook, Hook::Probers(_));
        let mut attached = self.attached.iter().filter(are_for_workloads);
        attached.all(|attached| attached.is_in_force(cgroup))
    }
}

/// A program in force.
#[derive(Debug)]
struct AttachedProgram {
    name: &'static str,
    hook: Hook,
    program: OwnedFd,
    program_id: u32,
    /// `None` if the kernel has refused it, and everything else goes on without it.
    link: Option<OwnedFd>,
    pin: PathBuf,
}

impl AttachedProgram {
    /// Attaches a program through the link that is pinned there, or else through a new one.
    fn new(
        name: &'static str,
        hook: Hook,
        program: OwnedFd,
        pin: PathBuf,
        targets: &Targets,
    ) -> io::Result<Self> {
        let attach = || match targets.adopt(&pin, hook, program.as_fd())? {
            Some(link) => Ok(link),
            None => targets.attach(hook, program.as_fd()),
        };
        let link = match attach() {
            Ok(link) => Some(link),
            Err(error) if matches!(hook, Hook::Probers(_)) => {
                tracing::error!(program = name, %error, "cannot see the kubelet's connections; its probes are refused");
                None
            }
            Err(error) => return Err(error),
        };
        let program_id = bpf::program_id(program.as_fd())?;
        Ok(Self { name, hook, program, program_id, link, pin })
    }

    /// True if the kernel says that it runs.
    fn is_in_force(&self, cgroup: &File) -> bool {
        match self.hook {
            Hook::Cgroup(attach_type) | Hook::Root(attach_type) | Hook::Probers(attach_type) => {
                bpf::effective_programs(cgroup.as_fd(), attach_type)
                    .is_ok_and(|ids| ids.contains(&self.program_id))
            }
            Hook::Tracepoint(_) => self.link.as_ref().is_some_and(|link| {
                bpf::link_info(link.as_fd()).is_ok_and(|info| info.program_id == self.program_id)
            }),
        }
    }

    fn repair(&mut self, targets: &Targets, pins: &Pins) -> io::Result<()> {
        if !self.is_in_force(targets.cgroup()) {
            self.link = Some(targets.attach(self.hook, self.program.as_fd())?);
        }
        pins.create()?;
        self.pin()
    }

    /// Pins under a name of its own first: the old pin, and with it an old link, is replaced in one step.
    fn pin(&self) -> io::Result<()> {
        // No dots: the kernel reserves them.
        let mut fresh = self.pin.clone().into_os_string();
        fresh.push("-new");
        let fresh = PathBuf::from(fresh);
        let _ = fs::remove_file(&fresh);
        let Some(link) = &self.link else {
            return Ok(());
        };
        bpf::pin(link.as_fd(), &fresh)?;
        fs::rename(&fresh, &self.pin)
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::OBJECT;
    use super::*;

    /// A unit that asserts another one could start when only a part is in force.
    #[test]
    fn what_units_are_told_to_assert_is_pinned_last() {
        let (_, pin, _) = PROGRAMS[PROGRAMS.len() - 1];
        let last = format!("AssertPathExistsGlob=/sys/fs/bpf/sheath/default/v*/links/{pin}");
        for (file, told) in [
            ("README.md", include_str!("../../../../README.md")),
            ("needs.md", include_str!("../../../../tests/src/vm/needs.md")),
        ] {
            let words = told.split_whitespace().map(|word| word.trim_matches('`'));
            let asserted: Vec<&str> = words.filter(|word| word.starts_with("AssertPath")).collect();
            assert_eq!(asserted, [&last], "{file}");
        }
    }

    #[test]
    fn the_kernel_is_asked_about_every_program_of_the_object() {
        let count = try_out().unwrap();
        let in_object = aya_obj::Object::parse(OBJECT).unwrap().programs.len();
        assert_eq!(count, in_object);
    }
}
