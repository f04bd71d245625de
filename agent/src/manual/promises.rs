//! What Sheath promises. Scenarios, the files in `tests/scenarios/`, show that each promise is kept.
//!
//! 1. **No plaintext leaves.** Of a flow that policy protects, no byte of the application crosses the node's edge
//!    unencrypted: not at the start, not during enrolment, not when the agent is killed, not by any trick with sockets
//!    that an unprivileged process has. Programs and maps are pinned, so the redirect outlives the agent and fails
//!    closed. A second, independent program at the edge drops what did not come through the agent, and counts it.
//!    Shown by `no_plaintext`, `enrolment`, `enrolment_limits`, `capture_root`, `fail_closed`, `lost_pins`, `guards`, `diverted`,
//!    `socket_matrix`, `socket_tricks`, `pods_at_birth`.
//! 2. **No fallback.** A destination that is known to be protected is reached by mutual TLS or not at all.
//!    Shown by `modes`, `peers`, `external_names`.
//! 3. **Identity comes from the kernel, never from an address.** The workload of a flow is what the kernel recorded
//!    about the calling cgroup at `connect()`. A lookup that misses is a reset, never a guess.
//!    Shown by `identity`, `workload_ids`, `ownership`, `abuse`.
//! 4. **The peer is the expected peer.** Its certificate leads to the bundle of its trust domain, and has a SPIFFE ID that
//!    is expected at the destination; or it has a name or a pin that is expected there. "Some valid certificate" is not enough.
//!    Shown by `no_plaintext`, `peers`, `pinned_peers`, `external_peers`, `federation`, `live_sessions`.
//! 5. **The kernel steers, the end of the TLS connection decides.** Nothing is decided about an identity before the
//!    handshake has proved it, and no byte of the application is delivered before the decision. Excepted are the kubelet's own
//!    connections to ports that the specification of a pod of its node declares as probes or hooks, recognised by their sockets.
//!    Shown by `peers`, `inbound_tls`, `probes`.
//! 6. **TCP is still TCP.** Each direction can end by itself. A refused or reset destination is a reset for the
//!    application, never a clean end; so is TLS that is cut. A slow reader slows the writer down. Servers may
//!    speak first.
//!    Shown by `tcp`, `dead_servers`, `session_loss`.
//! 7. **The application sees the addresses it asked for**: the real peer, and the workload's own address.
//!    Shown by `addresses`.
//! 8. **The wire keeps its ports.** TLS runs on the application's own destination port, so that firewalls and flow logs
//!    keep their meaning, and any standard peer of mutual TLS can call a workload and be called.
//!    Shown by `no_plaintext`, `addresses`, `interop_openssl`, `interop_nginx`, `interop_envoy`, `interop_stunnel`.
//! 9. **Truth in status.** What the agent reports is what it has observed, never what it was told to do. It looks again,
//!    and repairs what it finds broken.
//!    Shown by `status`, `lost_pins`.
//! 10. **Nothing is lost in an upgrade.** An agent that takes over from another refuses no connection meanwhile, and live ones go
//!     on in it ([`handover`](crate::handover), [`relay`](crate::relay), [`wire::saved`](crate::wire::saved)). What cannot go, TLS 1.2 to
//!     external peers for instance, stays with the agent before for as long as that may take to end.
//!     Shown by `handover`, `agent_update`.
