//! Where a kubelet makes the cgroups of its pods, and which pod a cgroup's path is that of: in the kernel at the moment the cgroup is
//! made, and on the host for those that exist.
//!
//! Below its root the kubelet has a cgroup for each class of service but the first (k/k
//! pkg/kubelet/cm/qos_container_manager_linux.go), and in these one for each pod (pod_container_manager_linux.go,
//! `GetPodContainerName`). Which of two drivers it names them by follows from the root, whose name is a slice with the one of
//! systemd (cgroup_manager_linux.go, `ToSystemd`; systemd.slice(5)):
//!
//! | class      | cgroupfs: `/kubepods`           | systemd: `/kubepods.slice`                                      |
//! |------------|---------------------------------|-----------------------------------------------------------------|
//! | guaranteed | `/pod<uid>`                     | `/kubepods-pod<uid>.slice`                                      |
//! | burstable  | `/burstable/pod<uid>`           | `/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice`   |
//! | besteffort | `/besteffort/pod<uid>`          | `/kubepods-besteffort.slice/kubepods-besteffort-pod<uid>.slice` |
//!
//! The systemd driver writes `_` for the `-` of a UUID. A path is a pod's only if it is exactly one of these: containers may make cgroups
//! below their own, under any name.

use crate::pod_uid::{PodUid, UidReader};
use crate::selector::PATH_LEN;

/// Longest text before a uid, in bytes. A power of two: indices are masked with it for the verifier.
pub const HEAD_LEN: usize = 256;
/// What stands behind a uid that the systemd driver writes. With a zero behind it, so that its length is a power of two.
const SLICE: [u8; 8] = *b".slice\0\0";
const SLICE_LEN: u32 = 6;

/// No comparison takes more steps than this: each class has its head compared, and one of them a uid and what is behind it.
pub const MAX_STEPS: u32 = 3 * HEAD_LEN as u32 + 64;

/// What is wrong with the root of pods' cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootError {
    /// Not of the form `/a/b`, or with a component that no cgroup has.
    Path,
    /// A slice without a name.
    Slice,
    /// The paths of pods would be longer than can be compared.
    TooLong,
}

/// Value of the `POD_RULES` array: how pods are recognised, and what becomes of those that nobody has decided about.
///
/// There are two, of which one is in force: `POD_GENERATION` counts the changes, and its lowest bit chooses. The other is written
/// whole before it takes the place of the first in one step.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRules {
    /// Cookie of the host's network namespace; zero if it is not known.
    host_netns: u64,
    /// Nonzero: a pod that nobody has decided about is held.
    holds_unknown: u32,
    /// Nonzero: even in the host's network namespace.
    holds_host: u32,
    pub paths: PodPaths,
}

/// Rules of which one is in force.
pub const RULES: usize = 2;

/// Number of the rules in force in a generation.
#[inline(always)]
#[must_use]
pub const fn rules_of(generation: u32) -> u32 {
    generation & 1
}

impl PodRules {
    /// No pods on this node.
    pub const NONE: Self = Self::new(PodPaths::NONE, 0, true, true);

    #[must_use]
    pub const fn new(
        paths: PodPaths,
        host_netns: u64,
        holds_unknown: bool,
        holds_host: bool,
    ) -> Self {
        Self {
            host_netns,
            holds_unknown: holds_unknown as u32,
            holds_host: holds_host as u32,
            paths,
        }
    }

    /// True if a pod is to be held that nobody has decided about. A static pod never is: nobody may be there yet who could
    /// decide, as the API server is one.
    #[inline(always)]
    #[must_use]
    pub const fn hold(&self, is_hash: bool) -> bool {
        self.holds_unknown != 0 && !is_hash
    }

    /// True if what a held pod does in this network namespace is left alone.
    #[inline(always)]
    #[must_use]
    pub const fn spare(&self, netns: u64) -> bool {
        self.spare_host() && self.host_netns == netns
    }

    /// Cookie of the host's network namespace; zero if it is not known.
    #[inline(always)]
    #[must_use]
    pub const fn host_netns(&self) -> u64 {
        self.host_netns
    }

    /// True if what a held pod does in the host's network namespace is left alone.
    #[inline(always)]
    #[must_use]
    pub const fn spare_host(&self) -> bool {
        self.holds_host == 0 && self.host_netns != 0
    }
}

/// How the paths of pods' cgroups begin and end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodPaths {
    /// One for each class of service.
    heads: [Head; 3],
    /// Between the groups of a UUID.
    separator: u32,
    /// How much of `SLICE` is behind a uid.
    tail: u32,
}

/// What is before the uid in the paths of one class.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    len: u32,
    /// Length of the path of the cgroup in which the class's pods are.
    parent: u32,
    text: [u8; HEAD_LEN],
}

impl PodPaths {
    /// No path is a pod's.
    pub const NONE: Self = Self { heads: [Head::EMPTY; 3], separator: 0, tail: 0 };

    /// From the path of the cgroup that has all pods of a kubelet below it, from the root of the hierarchy.
    ///
    /// # Errors
    /// If it is no such path, or too long.
    pub fn below(root: &str) -> Result<Self, RootError> {
        let (_, last) = root.rsplit_once('/').ok_or(RootError::Path)?;
        let is_plain = |part: &str| {
            !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_control())
        };
        if !root.starts_with('/') || !root[1..].split('/').all(is_plain) {
            return Err(RootError::Path);
        }
        let classes = ["", "burstable", "besteffort"];
        let (heads, separator, tail) = match last.strip_suffix(".slice") {
            Some("") => return Err(RootError::Slice),
            Some(name) => (classes.map(|class| Head::of_slice(root, name, class)), b'_', SLICE_LEN),
            None => (classes.map(|class| Head::of_directory(root, class)), b'-', 0),
        };
        let [a, b, c] = heads;
        Ok(Self { heads: [a?, b?, c?], separator: separator.into(), tail })
    }

    /// False for [`Self::NONE`].
    #[inline(always)]
    #[must_use]
    pub const fn is_some(&self) -> bool {
        self.heads[0].len != 0
    }

    /// Paths of the cgroups that have the pods directly below them: the root first, then one for each other class.
    pub fn parents(&self) -> impl Iterator<Item = &[u8]> {
        self.heads.iter().filter(|_| self.is_some()).map(|head| &head.text[..head.parent as usize])
    }

    /// What a path is on the host, by the same steps that the kernel's side takes.
    #[must_use]
    pub fn place(&self, path: &[u8]) -> Place {
        let mut buffer = [0; PATH_LEN];
        let Some(room) = buffer.get_mut(..path.len()) else {
            return Place::Elsewhere;
        };
        room.copy_from_slice(path);
        let mut comparison = Comparison::default();
        for _ in 0..MAX_STEPS {
            if !comparison.step(self, &buffer, path.len() as u32) {
                return comparison.found();
            }
        }
        Place::Elsewhere
    }
}

impl Head {
    const EMPTY: Self = Self { len: 0, parent: 0, text: [0; HEAD_LEN] };

    fn of_directory(root: &str, class: &str) -> Result<Self, RootError> {
        let mut head = Self::EMPTY;
        head.add(&[root])?;
        if !class.is_empty() {
            head.add(&["/", class])?;
        }
        head.parent = head.len;
        head.add(&["/pod"])?;
        Ok(head)
    }

    /// The name of a slice has those of all above it.
    fn of_slice(root: &str, name: &str, class: &str) -> Result<Self, RootError> {
        let mut head = Self::EMPTY;
        head.add(&[root])?;
        if class.is_empty() {
            head.parent = head.len;
            head.add(&["/", name, "-pod"])?;
        } else {
            head.add(&["/", name, "-", class, ".slice"])?;
            head.parent = head.len;
            head.add(&["/", name, "-", class, "-pod"])?;
        }
        Ok(head)
    }

    fn add(&mut self, parts: &[&str]) -> Result<(), RootError> {
        for part in parts {
            let at = self.len as usize;
            let room = self.text.get_mut(at..at + part.len()).ok_or(RootError::TooLong)?;
            room.copy_from_slice(part.as_bytes());
            self.len += part.len() as u32;
        }
        Ok(())
    }
}

/// What a cgroup is by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// No pod's, nor directly above one.
    Elsewhere,
    /// Pods are directly below it.
    AbovePods,
    /// A pod's. `is_hash`: its uid is written without separators, as a static pod's.
    Pod { uid: PodUid, is_hash: bool },
}

/// How far the comparison of a path with [`PodPaths`] has come. One [`Comparison::step`] looks at one character, so that the
/// kernel can drive it with `bpf_loop`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The class whose head is compared.
    class: u32,
    /// Position in the path.
    at: u32,
    reader: UidReader,
    found: u32,
}

const ABOVE_PODS: u32 = 1;
const POD: u32 = 2;

impl Comparison {
    /// Looks at one character more. `path_len` are the bytes in use. False at the end: then [`Self::found`] has the answer.
    #[inline(always)]
    pub fn step(&mut self, paths: &PodPaths, path: &[u8; PATH_LEN], path_len: u32) -> bool {
        let Some(head) = paths.heads.get(self.class as usize).filter(|_| paths.is_some()) else {
            return false;
        };
        let at = self.at;
        let character = path[at as usize & (PATH_LEN - 1)];
        if at < head.len {
            let is_over = at == path_len;
            if is_over && at == head.parent {
                self.found = ABOVE_PODS;
                return false;
            }
            if is_over || character != head.text[at as usize & (HEAD_LEN - 1)] {
                // Of another class, if of any.
                self.class += 1;
                self.at = 0;
            } else {
                self.at += 1;
            }
            return true;
        }
        // A path that is too short makes this a number that no uid's length is.
        let uid_len = path_len.wrapping_sub(head.len + paths.tail);
        if at == head.len && !self.reader.begin(uid_len) {
            return false;
        }
        let uid_end = path_len.wrapping_sub(paths.tail);
        let fits = if at < uid_end {
            self.reader.take(character, paths.separator as u8)
        } else {
            character == SLICE[(at - uid_end) as usize & (SLICE.len() - 1)]
        };
        self.at += 1;
        if fits && self.at == path_len {
            self.found = POD;
            return false;
        }
        fits
    }

    /// What the path is, after the last step.
    #[must_use]
    pub fn found(&self) -> Place {
        match self.found {
            ABOVE_PODS => Place::AbovePods,
            POD => Place::Pod { uid: *self.reader.uid(), is_hash: self.reader.is_hash() },
            _ => Place::Elsewhere,
        }
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_above_pods(&self) -> bool {
        self.found == ABOVE_PODS
    }

    /// The pod's uid, and whether it is written as a static pod's: the parts of [`Place::Pod`], for a program, which cannot
    /// take them from an enum on every kernel.
    #[inline(always)]
    #[must_use]
    pub const fn pod(&self) -> Option<&UidReader> {
        if self.found == POD { Some(&self.reader) } else { None }
    }
}

#[cfg(test)]
mod tests;
