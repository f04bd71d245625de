//! The life of a flow, outbound.
//!
//! | step | what happens | where |
//! |---|---|---|
//! | 1 | An application calls `connect()`. The kernel finds its workload by the cgroup of the calling task, and policy by the destination; it turns the connection to the agent, and remembers in the socket where it was to go. | `ebpf/src/connect.rs` |
//! | 2 | The SYN leaves. What was remembered is now found by the connection's source. | `ebpf/src/sockops.rs` |
//! | 3 | The agent accepts, and takes that entry. Without one there is no flow, but a reset. | [`capture`](crate::capture) |
//! | 4 | Policy says who must answer at the destination, and in which TLS. | [`policy`](crate::policy) |
//! | 5 | The workload's own certificate is there, and valid. | [`identity`](crate::identity) |
//! | 6 | The wire leg is dialled from the workload's network namespace and address. | [`capture`](crate::capture) |
//! | 7 | Both ends prove who they are. A peer that is not expected is refused within the handshake. | [`tls`](crate::tls), [`trust`](crate::trust) |
//! | 8 | Bytes move until both directions have ended, a leg fails, or what made the session good is gone. | [`relay`](crate::relay), [`wire`](crate::wire), [`sessions`](crate::sessions) |
//! | 9 | The session is kept for the next flow to the same place, and one line is logged. | [`pipeline`](crate::pipeline) |
//!
//! Inbound it is the same from the other end: the SYN for a workload's port is handed to the agent before anything listens
//! to it; the client proves who it is; and the agent dials the workload over loopback, having told the kernel which workload this
//! connection is for and which client it stands for.
//!
//! [`pipeline`](crate::pipeline) tells it in code.
