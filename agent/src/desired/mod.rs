//! What the node should be like: workloads, peers and trust, as plain values, whoever has written them down.
//!
//! The configuration file is one producer of it. Every value says where it was written: its [`Origin`].

mod origin;

pub use origin::{FileKey, Origin};
