//! What the BPF programs and the agent must agree on: the shapes of map entries, the decision about a
//! connection, the globs and uids by which cgroups are recognised, reason codes and counters.
//!
//! Everything here is `no_std`, free of I/O and compiled for both sides, so what the property tests prove on
//! the host is what runs in the kernel.

#![cfg_attr(not(test), no_std)]

pub mod counters;
pub mod enrolment;
pub mod event;
pub mod flow;
pub mod guard;
mod layout;
pub mod maps;
pub mod net;
pub mod pod_cgroups;
pub mod pod_uid;
pub mod probe;
pub mod selector;
pub mod verdict;
pub mod workload;

#[cfg(feature = "user")]
mod map_types;
