//! The kernel interfaces that no library in use covers. All of the agent's `unsafe` lives in this folder.

pub mod bpf;
pub mod cgroup_id;
pub mod clock;
pub mod descriptors;
pub mod erased;
pub mod files;
pub mod hardening;
pub mod heap;
pub mod namespaces;
pub mod netns;
pub mod owner;
pub mod pidfd;
pub mod readiness;
pub mod sock_diag;
pub mod sockopt;
pub mod tcp;
pub mod watch;
