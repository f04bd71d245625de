//! What both sides must agree on beside names, asserted wherever this is compiled: for the kernel, and for each kind of machine
//! that the agent is built for.
//!
//! All shapes are `repr(C)`, of integers no wider than 64 bits, and without padding. So where such integers are aligned to their
//! size a shape is the same everywhere, field by field.

use crate::{
    enrolment, event, flow, net, pod_cgroups, pod_uid, probe, selector, verdict, workload,
};

/// The BPF object is made for little-endian machines (`bpfel`), and what it leaves in maps is read as it is.
const _: () = {
    assert!(cfg!(target_endian = "little"), "the BPF programs are for little-endian machines");
    assert!(cfg!(target_pointer_width = "64"), "a BPF program's pointers have 64 bits");
    assert!(align_of::<u16>() == 2 && align_of::<u32>() == 4 && align_of::<u64>() == 8);
};

/// A type without padding is as large as the sum of its fields.
const _: () = {
    assert!(size_of::<net::Address>() == 16);
    assert!(size_of::<net::Endpoint>() == 16 + 4);
    assert!(size_of::<event::Event>() == 4 + 4 + 8 + 8 + 8 + 4 + 4 + 20 + 20);
    assert!(size_of::<workload::Workload>() == 4 + 4);
    assert!(size_of::<verdict::DestinationKey>() == 4 + 4 + 16);
    assert!(size_of::<verdict::Destination>() == 4 + 4);
    assert!(size_of::<verdict::Known>() == 4);
    assert!(size_of::<flow::Connected>() == 20 + 4 + 4 + 8);
    assert!(size_of::<flow::FlowKey>() == 8 + 16 + 4 + 4);
    assert!(size_of::<flow::Flow>() == 8 + 8 + 20 + 4 + 8 + 32);
    assert!(size_of::<flow::LegKey>() == 8 + 16 + 4 + 4);
    assert!(size_of::<flow::UnreachableKey>() == 8 + 20 + 4 + 4 + 4);
    assert!(size_of::<flow::Unreachable>() == 8 + 8 + 4 + 4);
    assert!(size_of::<flow::ListenerKey>() == 8 + 4 + 4);
    assert!(size_of::<flow::SteeredKey>() == 8 + 16 + 4 + 4);
    assert!(size_of::<flow::LocalKey>() == 8 + 16);
    assert!(size_of::<flow::ActivatedKey>() == 8 + 4 + 4);
    assert!(size_of::<flow::LocalLeg>() == 8 + 4 + 4);
    assert!(size_of::<flow::SilentKey>() == 8 + 4 + 4);
    assert!(size_of::<flow::GuardedKey>() == 4 + 4);
    assert!(size_of::<flow::SourceKey>() == 8 + 16);
    assert!(size_of::<enrolment::Overflow>() == 8 + 8 + 8);
    assert!(size_of::<pod_uid::PodUid>() == 16);
    assert!(size_of::<pod_cgroups::PodPaths>() == 3 * (4 + 4 + pod_cgroups::HEAD_LEN) + 4 + 4);
    assert!(size_of::<pod_cgroups::PodRules>() == 8 + 4 + 4 + size_of::<pod_cgroups::PodPaths>());
    assert!(size_of::<probe::ProbeKey>() == 20 + 20);
    assert!(size_of::<probe::Probe>() == 8 + 8 + 4 + 4);
    assert!(size_of::<selector::PatternKey>() == 4 + 4);
    assert!(size_of::<selector::Pattern>() == 8 + 16 + (4 + selector::PATTERN_LEN) + 4 + 4 + 4);
    assert!(size_of::<selector::BeginningKey>() == 4 + selector::PATTERN_LEN);
};
