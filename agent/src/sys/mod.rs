//! Kernel interfaces: those that no library in use covers, and safe forms of others.
//!
//! All of the agent's `unsafe` is in this folder: `lib.rs` has the compiler refuse it elsewhere. One attribute is not, the
//! name of the allocator's settings in `main.rs`.

pub mod bpf;
pub mod cgroup_id;
pub mod clock;
pub mod descriptors;
pub mod erased;
pub mod files;
pub mod hardening;
pub mod heap;
pub mod launch;
pub mod namespaces;
pub mod netns;
pub mod own_program;
pub mod owner;
pub mod pidfd;
pub mod readiness;
pub mod sock_diag;
pub mod sockopt;
pub mod tcp;
pub mod unix_socket;
pub mod watch;
