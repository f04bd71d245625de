//! Loading the BPF programs, attaching them through pinned links, taking over those of an earlier agent, and
//! looking whether they are still in force.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};

use super::filesystems::ROOT_CGROUP;
use super::held::HeldMaps;
use super::maps::PINNED;
use super::pins::Pins;
use crate::capture::error::CaptureError;
use crate::sys::bpf::{self, AttachType};
use crate::sys::bpf_objects;

/// The compiled programs; `cargo xtask build-ebpf` makes them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sheath.bpf.o"));

/// Where a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The cgroup to capture.
    Cgroup(AttachType),
    /// The root of the hierarchy, needed only if that is not the cgroup to capture.
    Root(AttachType),
    /// An event of the `cgroup` group.
    Tracepoint(&'static str),
}

/// The programs, the name their links are pinned under, and their hooks. In this order: what recognises new
/// workloads first, what turns connections to the agent last, when everything they then need is in place.
const PROGRAMS: [(&str, &str, Hook); 13] = [
    ("cgroup_created", "cgroup_mkdir", Hook::Tracepoint("cgroup_mkdir")),
    ("cgroup_removed", "cgroup_rmdir", Hook::Tracepoint("cgroup_rmdir")),
    ("cgroup_populated", "cgroup_notify_populated", Hook::Tracepoint("cgroup_notify_populated")),
    ("socket_created", "sock_create", Hook::Root(AttachType::CgroupInetSockCreate)),
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

/// The programs that run for cgroups, loaded and perhaps attached.
#[derive(Debug)]
pub struct Programs {
    pins: Pins,
    held: Arc<HeldMaps>,
    cgroup: File,
    /// The root of the hierarchy, if that is another.
    root: Option<File>,
    places: Places,
    attached: Vec<Attached>,
    /// The cgroup to capture has been found missing, and that has been said.
    is_gone: bool,
}

/// Where programs attach.
#[derive(Clone, Debug)]
pub struct Places {
    /// The cgroup v2 root.
    pub mount: PathBuf,
    /// The cgroup to capture: the same, or below.
    pub cgroup: PathBuf,
    pub tracefs: PathBuf,
}

/// A program in force.
#[derive(Debug)]
pub struct Attached {
    pub name: &'static str,
    pub hook: Hook,
    program: OwnedFd,
    program_id: u32,
    link: OwnedFd,
    pin: PathBuf,
}

/// The object's maps and programs, loaded into the kernel. The programs are verified, and nothing is attached.
pub struct Loaded {
    ebpf: Ebpf,
}

/// Loads maps (those that are pinned already are taken over) and programs.
pub fn load(pins: &Pins) -> Result<Loaded, CaptureError> {
    let mut ebpf = load_object(pins, 0)?;
    for (name, _, _) in PROGRAMS {
        load_program(&mut ebpf, name)?;
    }
    Ok(Loaded { ebpf })
}

impl Loaded {
    /// The ring buffer of events.
    pub fn take_events(&mut self) -> Result<aya::maps::RingBuf<aya::maps::MapData>, CaptureError> {
        let map = self.ebpf.take_map("EVENTS").ok_or_else(|| missing("EVENTS"))?;
        aya::maps::RingBuf::try_from(map).map_err(|error| CaptureError::Load(error.to_string()))
    }

    /// Attaches all programs, or none. Links that are pinned are given the new programs in place. Nothing new
    /// is pinned yet: should a later step of the start fail, the links go with this value.
    pub fn attach(
        self,
        pins: &Pins,
        held: &Arc<HeldMaps>,
        places: Places,
    ) -> Result<Programs, CaptureError> {
        let open = |path: &Path| {
            File::open(path)
                .map_err(|error| CaptureError::NoCaptureRoot { path: path.to_owned(), error })
        };
        let cgroup = open(&places.cgroup)?;
        let root = (places.cgroup != places.mount).then(|| open(&places.mount)).transpose()?;
        let mut programs = Programs {
            pins: pins.clone(),
            held: held.clone(),
            cgroup,
            root,
            places,
            attached: Vec::new(),
            is_gone: false,
        };
        for (name, pin, hook) in PROGRAMS {
            if matches!(hook, Hook::Root(_)) && programs.root.is_none() {
                // Another configuration may have wanted it.
                let _ = fs::remove_file(pins.link(pin));
                continue;
            }
            let program = program_fd(&self.ebpf, name)?;
            held.check(program.as_fd())?;
            programs.attach(name, pins.link(pin), hook, program)?;
        }
        Ok(programs)
    }
}

impl Programs {
    fn attach(
        &mut self,
        name: &'static str,
        pin: PathBuf,
        hook: Hook,
        program: OwnedFd,
    ) -> Result<(), CaptureError> {
        let failed =
            |error| CaptureError::Attach { program: name, target: self.place(hook), error };
        let link = self.adopt(&pin, hook, program.as_fd()).map_err(failed)?;
        let link = match link {
            Some(link) => link,
            None => self.create(hook, program.as_fd()).map_err(failed)?,
        };
        let program_id = bpf_objects::program_id(program.as_fd()).map_err(failed)?;
        self.attached.push(Attached { name, hook, program, program_id, link, pin });
        Ok(())
    }

    /// Takes over a pinned link if it still holds where it should. The link of a tracepoint cannot be given
    /// another program: it is made anew, and the old one lives until [`Self::pin`] replaces it.
    fn adopt(
        &self,
        pin: &Path,
        hook: Hook,
        program: BorrowedFd<'_>,
    ) -> io::Result<Option<OwnedFd>> {
        let target = match hook {
            Hook::Cgroup(_) => cgroup_id(&self.cgroup)?,
            Hook::Root(_) => ROOT_CGROUP,
            Hook::Tracepoint(_) => return Ok(None),
        };
        let link = match bpf::open_pin(pin) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if bpf::link_info(link.as_fd())?.target != target {
            return Ok(None);
        }
        bpf::update_link(link.as_fd(), program)?;
        Ok(Some(link))
    }

    fn create(&self, hook: Hook, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        match hook {
            Hook::Cgroup(attach_type) => {
                bpf::create_link(program, self.cgroup.as_fd(), attach_type)
            }
            Hook::Root(attach_type) => {
                let root = self.root.as_ref().ok_or(io::ErrorKind::NotFound)?;
                bpf::create_link(program, root.as_fd(), attach_type)
            }
            Hook::Tracepoint(event) => {
                let id = fs::read_to_string(
                    self.places.tracefs.join("events/cgroup").join(event).join("id"),
                )?;
                let id = id.trim().parse().map_err(io::Error::other)?;
                bpf::create_tracepoint_link(program, id)
            }
        }
    }

    /// Pins every link, so that it outlives the agent.
    pub fn pin(&self) -> io::Result<()> {
        self.attached.iter().try_for_each(Attached::pin)
    }

    /// Attaches to the cgroup that has the path now, if it has been removed and made anew. True if so.
    pub fn follow(&mut self) -> bool {
        let Ok(cgroup) = File::open(&self.places.cgroup) else {
            return false;
        };
        match (cgroup_id(&cgroup), cgroup_id(&self.cgroup)) {
            (Ok(now), Ok(before)) if now != before => {}
            _ => return false,
        }
        let path = self.places.cgroup.display();
        tracing::warn!(cgroup = %path, "capture.cgroup has been removed and made anew; attaching to the new one");
        self.cgroup = cgroup;
        self.check_and_repair();
        true
    }

    /// The id of the cgroup that all programs are attached to, if they are.
    pub fn covered(&self) -> Option<u64> {
        self.all_in_force_for(&self.cgroup).then(|| cgroup_id(&self.cgroup).ok()).flatten()
    }

    /// True, and said once, while there is no cgroup to attach to.
    fn has_nowhere_to_attach(&mut self) -> bool {
        let is_gone = !self.places.cgroup.exists();
        if is_gone && !self.is_gone {
            tracing::warn!(
                cgroup = %self.places.cgroup.display(),
                "capture.cgroup has been removed; workloads in a new one get no TCP socket until the programs are attached to it"
            );
        }
        self.is_gone = is_gone;
        is_gone
    }

    /// Looks at every program, and puts back what somebody has taken away.
    pub fn check_and_repair(&mut self) -> Vec<(&'static str, Hook, bool)> {
        put_back_maps(&self.held);
        let nowhere = self.has_nowhere_to_attach();
        let mut seen = Vec::new();
        for index in 0..self.attached.len() {
            let attached = &self.attached[index];
            let observed = attached.is_in_force(&self.cgroup);
            seen.push((attached.name, attached.hook, observed));
            if observed && attached.pin.exists() {
                continue;
            }
            if nowhere && matches!(attached.hook, Hook::Cgroup(_)) {
                continue;
            }
            tracing::warn!(
                program = attached.name,
                observed,
                "program or pin removed behind the agent's back; putting it back"
            );
            if let Err(error) = self.repair(index) {
                tracing::error!(program = self.attached[index].name, %error, "not put back");
            }
        }
        seen
    }

    fn repair(&mut self, index: usize) -> io::Result<()> {
        if !self.attached[index].is_in_force(&self.cgroup) {
            let attached = &self.attached[index];
            let link = self.create(attached.hook, attached.program.as_fd())?;
            self.attached[index].link = link;
        }
        self.pins.create()?;
        self.attached[index].pin()
    }

    /// True if all programs run for a cgroup.
    pub fn all_in_force_for(&self, cgroup: &File) -> bool {
        self.attached.iter().all(|attached| attached.is_in_force(cgroup))
    }

    /// Where a program attaches, for people.
    #[must_use]
    pub fn place(&self, hook: Hook) -> String {
        match hook {
            Hook::Cgroup(_) => self.places.cgroup.display().to_string(),
            Hook::Root(_) => self.places.mount.display().to_string(),
            Hook::Tracepoint(event) => format!("cgroup:{event}"),
        }
    }
}

impl Attached {
    /// What the kernel says, not what was asked of it.
    fn is_in_force(&self, cgroup: &File) -> bool {
        match self.hook {
            Hook::Cgroup(attach_type) | Hook::Root(attach_type) => {
                bpf::effective_programs(cgroup.as_fd(), attach_type)
                    .is_ok_and(|ids| ids.contains(&self.program_id))
            }
            Hook::Tracepoint(_) => bpf::link_info(self.link.as_fd())
                .is_ok_and(|info| info.program_id == self.program_id),
        }
    }

    /// Pins under a name of its own first: the old pin, and with it an old link, is replaced in one step.
    fn pin(&self) -> io::Result<()> {
        // No dots: the kernel reserves them.
        let mut fresh = self.pin.clone().into_os_string();
        fresh.push("-new");
        let fresh = PathBuf::from(fresh);
        let _ = fs::remove_file(&fresh);
        bpf::pin(self.link.as_fd(), &fresh)?;
        fs::rename(&fresh, &self.pin)
    }
}

/// What is loaded later finds its maps by their pins.
pub(super) fn put_back_maps(held: &HeldMaps) {
    match held.put_back_pins() {
        Ok(maps) if maps.is_empty() => {}
        Ok(maps) => tracing::warn!(?maps, "pins of maps removed behind the agent's back; put back"),
        Err(error) => tracing::error!(%error, "pins of maps are missing, and cannot be put back"),
    }
}

pub(super) fn load_object(pins: &Pins, netns: u64) -> Result<Ebpf, CaptureError> {
    let mptcp = u8::from(Path::new("/proc/sys/net/mptcp").is_dir());
    let mut loader = EbpfLoader::new();
    loader.override_global("MPTCP", &mptcp, true).override_global("NETNS", &netns, true);
    for name in PINNED {
        loader.map_pin_path(name, pins.map(name));
    }
    loader.load(OBJECT).map_err(|error| CaptureError::Load(in_one_line(&error)))
}

pub(super) fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), CaptureError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let loaded = match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        Program::TracePoint(program) => program.load(),
        _ => return Err(missing(name)),
    };
    loaded.map_err(|error| CaptureError::Load(format!("{name}: {}", in_one_line(&error))))
}

pub(super) fn program_fd(ebpf: &Ebpf, name: &str) -> Result<OwnedFd, CaptureError> {
    let program = ebpf.program(name).ok_or_else(|| missing(name))?;
    let fd = program.fd().map_err(|error| CaptureError::Load(error.to_string()))?;
    fd.as_fd().try_clone_to_owned().map_err(|error| CaptureError::Load(error.to_string()))
}

fn missing(name: &str) -> CaptureError {
    CaptureError::Load(format!("the BPF object has no `{name}`"))
}

/// An error with its causes. The verifier's log is long: it goes to the debug log.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    tracing::debug!("{text}");
    let said = text.split(". Verifier output").next().unwrap_or_default();
    said.lines().next().unwrap_or_default().to_owned()
}

/// A cgroup's id is the inode number of its directory.
pub fn cgroup_id(cgroup: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    cgroup.metadata().map(|metadata| metadata.ino())
}
