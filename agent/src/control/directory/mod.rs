//! Puts states of the directory in force: in the kernel, for the data path, and for live sessions.

mod keeper;

pub use keeper::Keeper;
