//! A workload as the kernel knows it.

/// Names a workload in every map; zero is no workload. The agent gives each name a number of its own, and none twice for as
/// long as the instance has pins: what bears a number, an entry or a socket, never comes to mean another workload.
pub type WorkloadId = u32;

/// The id of no workload.
pub const NO_WORKLOAD: WorkloadId = 0;
/// The first id that a workload may have, and the last.
pub const FIRST_ID: WorkloadId = 1;
pub const LAST_ID: WorkloadId = NO_WORKLOADS - 1;
/// Longest name of a workload, in bytes: names are keys of the `WORKLOAD_IDS` map.
pub const MAX_NAME: usize = 384;
/// The ids of [`Workload::REFUSED`], [`Workload::BASE`], [`Workload::AGENT`] and [`Workload::HELD`].
const REFUSED: WorkloadId = u32::MAX;
const BASE: WorkloadId = u32::MAX - 1;
const AGENT: WorkloadId = u32::MAX - 2;
const HELD: WorkloadId = u32::MAX - 3;
/// A number that is no workload's, for [rules](crate::verdict::SCOPE_CLUSTER) that are about none.
pub const NO_WORKLOADS: WorkloadId = HELD - 1;

/// What happens to connections that the workload opens.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundMode {
    /// Untouched.
    Disabled = 0,
    /// Known peers by mTLS or not at all; unknown destinations untouched.
    Prefer = 1,
    /// Known peers by mTLS, bypassed destinations untouched, everything else refused.
    Require = 2,
}

/// What happens to connections that the workload accepts.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundMode {
    /// Untouched.
    Disabled = 0,
    /// Mutual TLS from agents; anything else passes through the agent as it came.
    Permissive = 1,
    /// Mutual TLS or a reset.
    Strict = 2,
}

/// Value of the `WORKLOADS` map, whose key is a cgroup id. Modes are stored as plain bytes because a map is
/// memory that the compiler cannot vouch for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    pub id: WorkloadId,
    outbound: u8,
    inbound: u8,
    inbound_every_port: u8,
    /// Families in which its sockets do not reach the agent ([`V4`], [`V6`]), [`ABOVE`] and [`ABOVE_PODS`].
    marks: u8,
}

const V4: u8 = 1;
const V6: u8 = 2;
/// Other workloads lie below.
const ABOVE: u8 = 4;
/// Pods lie directly below.
const ABOVE_PODS: u8 = 8;

impl Workload {
    /// No workload: everything is left alone. It is a value and not an `Option`, because older kernels do not let programs copy
    /// the absent part of one.
    pub const NOBODY: Self =
        Self::new(NO_WORKLOAD, OutboundMode::Disabled, InboundMode::Disabled, false);

    /// Stands for a workload that cannot be determined: all of its connections are refused, in both directions.
    pub const REFUSED: Self = Self::new(REFUSED, OutboundMode::Require, InboundMode::Strict, true);

    /// No workload, but a cgroup below which a selector recognises some.
    pub const BASE: Self =
        Self::new(BASE, OutboundMode::Disabled, InboundMode::Disabled, false).above_others();

    /// No workload either, but the agent's own cgroup.
    pub const AGENT: Self = Self::new(AGENT, OutboundMode::Disabled, InboundMode::Disabled, false);

    /// Stands for a pod that nobody has decided about yet: all of its connections are refused, in both directions, but for
    /// those of the host's network namespace.
    pub const HELD: Self = Self::new(HELD, OutboundMode::Require, InboundMode::Strict, true);

    /// A [`Workload::BASE`] below which the pods of a kubelet are.
    pub const ABOVE_PODS: Self = Self { marks: ABOVE | ABOVE_PODS, ..Self::BASE };

    #[inline(always)]
    #[must_use]
    pub const fn is_nobody(&self) -> bool {
        self.id == NO_WORKLOAD
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_agent(&self) -> bool {
        self.id == AGENT
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_base(&self) -> bool {
        self.id == BASE
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_above_pods(&self) -> bool {
        self.below().may_be_pods()
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.id == HELD
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        self.id == REFUSED
    }

    #[must_use]
    pub const fn new(
        id: WorkloadId,
        outbound: OutboundMode,
        inbound: InboundMode,
        inbound_every_port: bool,
    ) -> Self {
        Self {
            id,
            outbound: outbound as u8,
            inbound: inbound as u8,
            inbound_every_port: inbound_every_port as u8,
            marks: 0,
        }
    }

    /// All of it as one number: what a BPF function can return.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        let rest = [self.outbound, self.inbound, self.inbound_every_port, self.marks];
        (self.id as u64) << 32 | u32::from_le_bytes(rest) as u64
    }

    /// From [`Workload::to_bits`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        let [outbound, inbound, inbound_every_port, marks] = (bits as u32).to_le_bytes();
        Self { id: (bits >> 32) as u32, outbound, inbound, inbound_every_port, marks }
    }

    /// The same workload, with the families in which its sockets do not reach the agent.
    #[must_use]
    pub const fn cut_off(self, v4: bool, v6: bool) -> Self {
        let families = (v4 as u8 * V4) | (v6 as u8 * V6);
        Self { marks: (self.marks & ABOVE) | families, ..self }
    }

    /// True if a connection that is turned to the agent would not get there.
    #[inline(always)]
    #[must_use]
    pub const fn is_cut_off(&self, v4: bool) -> bool {
        self.marks & if v4 { V4 } else { V6 } != 0
    }

    /// The same workload, with others below its cgroups.
    #[must_use]
    pub const fn above_others(self) -> Self {
        Self { marks: self.marks | ABOVE, ..self }
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_above_others(&self) -> bool {
        self.below().may_be_workloads()
    }

    /// What lies below.
    #[inline(always)]
    #[must_use]
    pub const fn below(&self) -> Below {
        Below(self.marks)
    }

    /// An unknown byte reads as the strictest mode.
    #[inline(always)]
    #[must_use]
    pub const fn outbound(&self) -> OutboundMode {
        match self.outbound {
            0 => OutboundMode::Disabled,
            1 => OutboundMode::Prefer,
            _ => OutboundMode::Require,
        }
    }

    /// An unknown byte reads as the strictest mode.
    #[inline(always)]
    #[must_use]
    pub const fn inbound(&self) -> InboundMode {
        match self.inbound {
            0 => InboundMode::Disabled,
            1 => InboundMode::Permissive,
            _ => InboundMode::Strict,
        }
    }

    /// True where the inbound mode covers every port, not only the declared ones.
    #[inline(always)]
    #[must_use]
    pub const fn inbound_every_port(&self) -> bool {
        self.inbound_every_port != 0
    }
}

/// What may lie further in than a cgroup. It is bits of an entry and not booleans: these are values to the verifier, which then
/// follows each combination of them through the rest of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Below(u8);

impl Below {
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[inline(always)]
    #[must_use]
    pub const fn may_be_workloads(self) -> bool {
        self.0 & ABOVE != 0
    }

    #[inline(always)]
    #[must_use]
    pub const fn may_be_pods(self) -> bool {
        self.0 & ABOVE_PODS != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVED: [Workload; 5] =
        [Workload::NOBODY, Workload::REFUSED, Workload::BASE, Workload::AGENT, Workload::HELD];

    #[test]
    fn no_workloads_id_stands_for_something_else() {
        for reserved in RESERVED {
            assert!(!(FIRST_ID..=LAST_ID).contains(&reserved.id), "{reserved:?}");
        }
        for (at, reserved) in RESERVED.iter().enumerate() {
            assert!(RESERVED[..at].iter().all(|other| other.id != reserved.id), "{reserved:?}");
            assert_ne!(reserved.id, NO_WORKLOADS);
        }
        assert!(!(FIRST_ID..=LAST_ID).contains(&NO_WORKLOADS));
    }

    #[test]
    fn a_held_pod_is_closed_both_ways_and_is_no_other_kind() {
        let held = Workload::HELD;
        assert_eq!((held.outbound(), held.inbound()), (OutboundMode::Require, InboundMode::Strict));
        assert!(held.is_held() && held.above_others().is_held() && held.inbound_every_port());
        assert!(!held.is_refused() && !held.is_base() && !held.is_agent() && !held.is_nobody());
        assert!(RESERVED.iter().filter(|workload| workload.is_held()).count() == 1);
        let (base, pods) = (Workload::BASE, Workload::ABOVE_PODS);
        assert!(base.is_base() && base.is_above_others() && !base.is_above_pods());
        assert!(pods.is_base() && pods.is_above_others() && pods.is_above_pods());
    }

    #[test]
    fn modes_survive_the_map() {
        let w = Workload::new(7, OutboundMode::Prefer, InboundMode::Permissive, true);
        assert_eq!(w.outbound(), OutboundMode::Prefer);
        assert_eq!(w.inbound(), InboundMode::Permissive);
        assert!(w.inbound_every_port());
    }

    #[test]
    fn a_workload_survives_its_bits() {
        let w = Workload { id: 7, outbound: 1, inbound: 2, inbound_every_port: 3, marks: 4 };
        for w in RESERVED.into_iter().chain([w, Workload::ABOVE_PODS]) {
            assert_eq!(Workload::from_bits(w.to_bits()), w);
        }
    }

    #[test]
    fn families_are_cut_off_one_by_one() {
        for (v4, v6) in [(false, false), (true, false), (false, true), (true, true)] {
            let cut = Workload::REFUSED.cut_off(v4, v6);
            assert_eq!((cut.is_cut_off(true), cut.is_cut_off(false)), (v4, v6));
            assert_eq!(cut.cut_off(false, false), Workload::REFUSED);
            assert!(!cut.is_above_others() && cut.above_others().is_above_others());
            assert_eq!(cut.above_others(), Workload::REFUSED.above_others().cut_off(v4, v6));
        }
    }

    #[test]
    fn an_unknown_mode_is_the_strictest() {
        let w = Workload { outbound: 9, inbound: 9, ..Workload::default() };
        assert_eq!(w.outbound(), OutboundMode::Require);
        assert_eq!(w.inbound(), InboundMode::Strict);
    }
}
