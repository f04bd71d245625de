//! Lets aya copy the map types byte by byte.

use crate::{enrolment, flow, net, pod_cgroups, pod_uid, probe, selector, verdict, workload};

// SAFETY: all of these are `repr(C)`, made of integers only, and have no padding (asserted in `layout.rs`), so every
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
