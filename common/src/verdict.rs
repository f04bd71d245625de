//! The decision about an outbound connection: pure, total, and the same in the kernel and on the host.

use crate::net::Endpoint;
use crate::workload::{NO_WORKLOADS, OutboundMode, WorkloadId};

/// Bits of a `PREFIXES` key before the address: 32 of scope, 32 of port.
pub const DESTINATION_PREFIX_BITS: u32 = 64;

/// Length of the prefix that is one address.
pub const ADDRESS_BITS: u32 = 128;

/// Scope of a rule that holds for every workload.
pub const SCOPE_ALL: u32 = 0;

/// Scope of the ranges of a cluster: every address in one is the directory's to tell. No workload has this number.
pub const SCOPE_CLUSTER: u32 = NO_WORKLOADS;

/// Port of a rule that holds for every port.
pub const PORT_ANY: u32 = 0;

/// Key of the `ADDRESSES` map, which has the rules about single addresses, and of the `PREFIXES` longest-prefix trie, there
/// without the prefix length. Scope and port always match exactly; only the address is matched by prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestinationKey {
    /// A workload's id, or [`SCOPE_ALL`].
    pub scope: u32,
    /// In host byte order, or [`PORT_ANY`].
    pub port: u32,
    pub address: crate::net::Address,
}

/// What a rule asks for, or the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Bypass,
    Protect,
    /// Of the directory alone: whoever is there is known, and not protected. What becomes of the connection is for the
    /// workload's mode to say.
    Plain,
    /// Of the directory alone: nobody answers there now, whatever the mode.
    Refuse,
}

/// Value of `ADDRESSES` and `PREFIXES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    action: u32,
    /// Length of the address prefix, 0 to 128 (IPv4 prefixes count from 96): how specific the rule is.
    pub prefix_len: u32,
}

impl Destination {
    #[must_use]
    pub const fn new(action: Action, prefix_len: u32) -> Self {
        Self {
            action: match action {
                Action::Bypass => 0,
                // No rule is about what only the directory knows.
                Action::Protect | Action::Plain | Action::Refuse => 1,
            },
            prefix_len,
        }
    }

    /// An unknown code reads as [`Action::Protect`].
    #[inline(always)]
    #[must_use]
    pub const fn action(&self) -> Action {
        if self.action == 0 { Action::Bypass } else { Action::Protect }
    }

    /// The lowest bit of a rank.
    const PROTECTS: u32 = 1;

    /// More than any rule's that is less specific, and never zero.
    #[inline(always)]
    const fn rank(&self, names_port: bool) -> u32 {
        let specificity = self.prefix_len * 2 + names_port as u32 + 1;
        let protects = matches!(self.action(), Action::Protect) as u32;
        specificity << 1 | protects
    }
}

/// Value of the `DIRECTORY` map, whose key is an [`Endpoint`]: an address with one port, or with [`PORT_ANY`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    action: u32,
}

impl Known {
    /// For the agent, which knows who is there.
    pub const PROTECT: Self = Self { action: 0 };
    pub const PLAIN: Self = Self { action: 1 };
    /// The cluster address of a Service that the configuration bypasses by its name.
    pub const BYPASS: Self = Self { action: 2 };
    /// Nobody answers there now: a pod that is not protected yet, or a Service without an endpoint.
    pub const REFUSE: Self = Self { action: 3 };

    /// An unknown code reads as [`Action::Protect`].
    #[inline(always)]
    #[must_use]
    pub const fn action(&self) -> Action {
        match self.action {
            1 => Action::Plain,
            2 => Action::Bypass,
            3 => Action::Refuse,
            _ => Action::Protect,
        }
    }

    /// True if a connection may leave as it is, by some workload's mode.
    #[must_use]
    pub const fn leaves_alone(&self) -> bool {
        matches!(self.action(), Action::Plain | Action::Bypass)
    }
}

/// The most specific of the rules that match a destination: the longer address prefix, then the rule that names the
/// port. Between equals protection wins, so that a rule that says "protected" is never undone by one that is no more
/// precise.
///
/// All of that is one number, of which the largest wins; zero is no rule. What the directory says is a number as well, and is
/// compared with no rule: it counts where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Best(u32);

impl Best {
    /// Takes a rule into account. `names_port` tells whether it is for exactly the destination's port.
    #[inline(always)]
    #[must_use]
    pub fn or(self, rule: Option<&Destination>, names_port: bool) -> Self {
        match rule {
            Some(rule) => Self(self.0.max(rule.rank(names_port))),
            None => self,
        }
    }

    /// As a number: what a BPF function can return.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From [`Best::to_bits`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// What the directory says, where there is no rule.
    #[inline(always)]
    #[must_use]
    pub const fn of_directory(action: Action) -> Self {
        Self(match action {
            Action::Plain => Self::PLAIN,
            Action::Refuse => Self::REFUSED,
            Action::Bypass => 2,
            Action::Protect => 2 | Destination::PROTECTS,
        })
    }

    /// The number of what is plain: no rule's, of which the lowest is 2.
    const PLAIN: u32 = 1;
    /// The number of what is refused: more than any rule's.
    const REFUSED: u32 = 1 << 31;

    #[inline(always)]
    fn is_some(self) -> bool {
        self.0 != 0
    }

    /// What the rule asks for, if there is one.
    #[inline(always)]
    fn action(self) -> Option<Action> {
        match self.0 {
            0 => None,
            Self::PLAIN => Some(Action::Plain),
            Self::REFUSED => Some(Action::Refuse),
            rank if rank & Destination::PROTECTS != 0 => Some(Action::Protect),
            _ => Some(Action::Bypass),
        }
    }
}

/// The tables that a decision is made by. Each looks one key up.
pub trait Tables<'r> {
    /// The rule about the key's address alone.
    fn address(&self, key: &DestinationKey) -> Option<&'r Destination>;

    /// The rule with the longest prefix that the key's address has.
    fn prefix(&self, key: &DestinationKey) -> Option<&'r Destination>;

    /// What the directory says of an address with a port, or with [`PORT_ANY`].
    fn directory(&self, key: &Endpoint) -> Option<&'r Known>;
}

/// The most specific of the rules about a workload's connections to a destination. Where there is none, it is what the directory
/// says of the destination's port, or of its address; and where that says nothing, whether the address is in a range of the
/// cluster: then it is for the agent to ask. So what is written comes before what is found out, whatever its prefix.
///
/// A rule about the address itself outdoes all others, so where there is one, the prefixes need not be looked at.
#[inline(always)]
#[must_use]
pub fn best_rule<'r>(
    workload: WorkloadId,
    destination: &Endpoint,
    tables: &impl Tables<'r>,
) -> Best {
    let best = best_in_four(workload, destination, |key| tables.address(key));
    if best.is_some() {
        return best;
    }
    let best = best_in_four(workload, destination, |key| tables.prefix(key));
    if best.is_some() {
        return best;
    }
    let Endpoint { address, .. } = *destination;
    let known = tables.directory(destination);
    if let Some(known) = known.or_else(|| tables.directory(&Endpoint { address, port: PORT_ANY })) {
        return Best::of_directory(known.action());
    }
    match tables.prefix(&DestinationKey { scope: SCOPE_CLUSTER, port: PORT_ANY, address }) {
        Some(_) => Best::of_directory(Action::Protect),
        None => Best::default(),
    }
}

/// The same, of the four places of one table that may have a rule for it.
#[inline(always)]
fn best_in_four<'r>(
    workload: WorkloadId,
    destination: &Endpoint,
    find: impl Fn(&DestinationKey) -> Option<&'r Destination>,
) -> Best {
    let Endpoint { address, port } = *destination;
    Best::default()
        .or(find(&DestinationKey { scope: workload, port, address }), true)
        .or(find(&DestinationKey { scope: workload, port: PORT_ANY, address }), false)
        .or(find(&DestinationKey { scope: SCOPE_ALL, port, address }), true)
        .or(find(&DestinationKey { scope: SCOPE_ALL, port: PORT_ANY, address }), false)
}

/// Why a connection is refused. The codes are shared with the agent, which spells them out in the access log.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// `require`, and no rule knows the destination.
    UnknownDestination = 1,
    /// The agent's own port, dialled by a workload.
    AgentPort = 2,
    /// A protected destination that only means something with an interface (`fe80::/10`).
    LinkLocal = 3,
    /// The agent does not serve the caller's network namespace (yet).
    NamespaceNotReady = 4,
    /// The kernel had no memory for what must be remembered about the connection.
    NoMemory = 5,
    /// The socket is bound to a device (or a VRF): the connection cannot be turned to loopback.
    BoundToDevice = 6,
    /// The destination refused the agent's last attempt, a moment ago, or could not be reached.
    Unreachable = 7,
    /// The caller's cgroup could not be recorded as a workload, or its path is too long to tell whether it is one.
    NotEnrolled = 8,
    /// A packet filter on the caller's cgroup blocks its way to the agent.
    CutOff = 9,
    /// The caller is in a pod that nobody has decided about yet.
    PodUndecided = 10,
    /// `require`, and the directory says that the destination is not protected.
    PlainDestination = 11,
    /// The directory says that nobody answers there now: the pod is not protected yet, or the Service has no endpoint.
    NobodyReady = 12,
}

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Untouched; never enters user space.
    Bypass,
    /// Turned to the agent.
    Protect,
    /// Refused at `connect()`.
    Deny(Denial),
}

/// The ground of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Nothing that is configured: it holds for everybody.
    BuiltIn,
    /// The workload's mode.
    Mode,
    /// The most specific rule.
    Rule,
}

/// Decides about a TCP connection of a workload in `mode` to `destination`; `best` is the most specific of the rules
/// that match it.
#[inline(always)]
#[must_use]
pub fn decide(mode: OutboundMode, destination: &Endpoint, best: Best) -> Verdict {
    decide_by(mode, destination, best).0
}

/// The same decision, with its ground.
#[inline(always)]
#[must_use]
pub fn decide_by(mode: OutboundMode, destination: &Endpoint, best: Best) -> (Verdict, Ground) {
    if destination.address.is_loopback() || destination.address.is_unspecified() {
        let verdict = if destination.is_agents() {
            Verdict::Deny(Denial::AgentPort)
        } else {
            Verdict::Bypass
        };
        return (verdict, Ground::BuiltIn);
    }
    if matches!(mode, OutboundMode::Disabled) {
        return (Verdict::Bypass, Ground::Mode);
    }
    match (best.action(), mode) {
        (Some(Action::Protect), _) if destination.address.is_link_local_v6() => {
            (Verdict::Deny(Denial::LinkLocal), Ground::Rule)
        }
        (Some(Action::Protect), _) => (Verdict::Protect, Ground::Rule),
        (Some(Action::Bypass), _) => (Verdict::Bypass, Ground::Rule),
        (Some(Action::Refuse), _) => (Verdict::Deny(Denial::NobodyReady), Ground::Rule),
        (Some(Action::Plain), OutboundMode::Require) => {
            (Verdict::Deny(Denial::PlainDestination), Ground::Mode)
        }
        (None, OutboundMode::Require) => (Verdict::Deny(Denial::UnknownDestination), Ground::Mode),
        (None | Some(Action::Plain), _) => (Verdict::Bypass, Ground::Mode),
    }
}

#[cfg(test)]
mod tests;
