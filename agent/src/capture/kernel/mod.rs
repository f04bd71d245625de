//! What capture has in the kernel: programs, maps, their pins and events; and what it looks for there.

pub mod destinations;
pub mod events;
pub mod filesystems;
pub mod held;
pub mod ids;
pub mod maps;
mod metrics;
pub mod mounts;
pub mod object;
pub mod pattern_maps;
pub mod pins;
pub mod prepared;
pub mod programs;
pub mod steering;
pub mod targets;
