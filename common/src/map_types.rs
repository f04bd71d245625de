//! Lets aya copy the map types byte by byte.

use crate::{enrolment, flow, net, pod_cgroups, pod_uid, probe, selector, verdict, workload};

// SAFETY: all of these are `repr(C)`, made of integers only, and have no padding (asserted below), so every
// byte pattern is a value and every value is fully initialised memory.
unsafe impl aya::Pod for net::Address {}
// SAFETY: as above.
unsafe impl aya::Pod for net::Endpoint {}
// SAFETY: as above.
unsafe impl aya::Pod for workload::Workload {}
// SAFETY: as above.
unsafe impl aya::Pod for verdict::DestinationKey {}
// SAFETY: as above.
unsafe impl aya::Pod for verdict::Destination {}
// SAFETY: as above.
unsafe impl aya::Pod for verdict::Known {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::Connected {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::FlowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::LegKey {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::UnreachableKey {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::Unreachable {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::ListenerKey {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::SteeredKey {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::LocalKey {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::LocalLeg {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::ActivatedKey {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::GuardedKey {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::SilentKey {}
// SAFETY: as above.
unsafe impl aya::Pod for flow::SourceKey {}
// SAFETY: as above.
unsafe impl aya::Pod for selector::PatternKey {}
// SAFETY: as above.
unsafe impl aya::Pod for selector::Pattern {}
// SAFETY: as above.
unsafe impl aya::Pod for selector::BeginningKey {}
// SAFETY: as above.
unsafe impl aya::Pod for enrolment::Overflow {}
// SAFETY: as above.
unsafe impl aya::Pod for pod_uid::PodUid {}
// SAFETY: as above.
unsafe impl aya::Pod for pod_cgroups::PodRules {}
// SAFETY: as above.
unsafe impl aya::Pod for probe::ProbeKey {}
// SAFETY: as above.
unsafe impl aya::Pod for probe::Probe {}

/// A type without padding is as large as the sum of its fields.
const _: () = {
    assert!(size_of::<net::Endpoint>() == 16 + 4);
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
