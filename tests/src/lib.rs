//! The harness of Sheath's scenario tests.
//!
//! A [`world::World`] is two nodes (network namespaces joined by one veth pair), a cgroup subtree
//! for each, and a certificate authority. An [`agent::Agent`] runs on a node; a [`probe::Probe`]
//! is a small application that plays a [`script`] inside a workload's cgroup and namespace; a
//! [`tap::Tap`] records every frame that crosses between the nodes and is the judge of what left.
//!
//! Everything is owned by a value whose `Drop` undoes it, in an order that holds on panic too.
//! Namespaces are anonymous: they vanish with the last file descriptor or process in them.
//!
//! The harness panics where something it needs is missing: a test that cannot set up its scenario
//! has failed, and must say so.

pub mod agent;
pub mod api_server;
pub mod balancer;
pub mod binaries;
pub mod ca;
pub mod certs;
pub mod cgroup;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod directory;
pub mod dissect;
pub mod filter;
pub mod hammer;
pub mod interop;
pub mod judge;
pub mod kubelet;
pub mod leaks;
pub mod lent;
pub mod live;
pub mod matrix;
pub mod names;
pub mod netns;
pub mod pair;
pub mod pins;
pub mod place;
pub mod probe;
pub mod programs;
pub mod raw;
pub mod rogue;
pub mod script;
pub mod secrets;
pub mod serial;
pub mod shown;
pub mod spire;
pub mod status;
pub mod tap;
pub mod translator;
pub mod tricks;
pub mod vm;
pub mod wait;
pub mod world;
