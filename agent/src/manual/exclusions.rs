//! What can go wrong with agents like this one, and how Sheath excludes it.
//!
//! # Plaintext on the wire
//!
//! *While the agent starts, is upgraded, or is dead*: programs, links and maps are pinned. A connection that is turned to an
//! agent that is not there is reset. *While a workload is born*: its cgroup is enrolled in the tracepoint that announces the
//! directory, before anybody can enter it. *By another kind of socket*: the guard at the edge goes by the state of the socket
//! that sends, not by headers, and knows nothing of how the connection was meant to pass.
//!
//! # A wrong identity
//!
//! *By a forged source, or a reused port*: the workload is what the kernel recorded of the calling task; the entry is
//! taken once. *By a collision of names*: ids of workloads are given out and pinned, and no id is given out twice. *By a
//! session of somebody else*: a kept session belongs to one workload, namespace, user, source and destination.
//!
//! # A wrong peer
//!
//! *Any valid certificate*: it cannot be configured. *A certificate for another purpose or name*: the rules of RFC
//! 5280 that the library in use leaves out are checked besides ([`trust`](crate::trust)). *One that was good once*: sessions are judged
//! again whenever policy, trust or identities change, and cut within a second. *By way of a library's shortcuts*: there is no
//! resumption, no early data, and no session ticket is kept.
//!
//! # Nonces and keys
//!
//! *A nonce that is used twice*: the number of a record is part of the key's value, goes up before it is used, and is
//! saved together with it; a restored session goes on with the next. *A key that is used for too long*: a KeyUpdate is sent
//! before the limit of RFC 8446, 5.5. *A key in a core dump or in swap*: memory is locked and not dumpable; keys and secrets
//! are erased when they are dropped.
//!
//! # A truncated stream
//!
//! TLS that ends without `close_notify`, and a frame that ends before its payload, are failures: the application's connection
//! is reset. Legs are set up so that closing them resets them until both directions have ended in order; so the death of the process
//! is a reset too.
//!
//! # Hostile input
//!
//! First bytes, frames, records, certificates, PEM files and configurations are parsed into types that cannot hold what is not
//! allowed, with limits for each; every such parser has a fuzz target in `fuzz/`. A file is read as a regular file, up to a limit,
//! with its owner and mode checked. What was saved by another process is checked as if a stranger had sent it
//! ([`wire::saved`](crate::wire::saved)).
//!
//! # Exhaustion
//!
//! Flows, handshakes and buffers have a quota for each workload. Clients that have proved nothing share slots of their own, and
//! the address with the most of them loses one first. Queues, retries and remembered answers have bounds and jitter.
