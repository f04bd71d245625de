//! Capture's part in the kernel: programs, maps, their pins and events; file systems and mounts.

pub mod clients;
pub mod destinations;
pub mod directory;
pub mod events;
pub mod filesystems;
pub mod held;
pub mod ids;
pub mod listeners;
pub mod maps;
mod metrics;
pub mod mounts;
pub mod object;
pub mod pattern_maps;
pub mod pins;
pub mod pod_maps;
pub mod prepared;
mod probe_maps;
pub mod programs;
mod steer_program;
pub mod steering;
pub mod targets;
