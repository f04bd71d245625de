//! What each workload may take of the agent: flows, handshakes, buffers. A workload that wants more than its quota is refused or
//! slowed down itself, and no other notices.

mod metrics;
mod quota;
mod quotas;
mod rate;
mod refusals;
mod share;
mod unproven;

pub use quota::{Permit, Quota};
pub use quotas::Quotas;
pub use unproven::UnprovenSlot;

/// What each workload may take of the agent. The same for all workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open at once; `None` for a share of what the descriptors allow, by how much is left.
    pub flows: Option<usize>,
    pub handshakes_per_second: u32,
    /// Bytes in buffers, beyond one of the smallest for each direction of a flow.
    pub buffers: usize,
}

/// Why a workload gets nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExceeded {
    #[error("the workload has {0} connections open, as many as it may")]
    Flows(usize),
    #[error(
        "the workload has {0} connections open, and what the descriptors still allow is left to others; raise RLIMIT_NOFILE, or set limits.flows"
    )]
    Share(usize),
    #[error("all workloads together have {0} connections open, as many as the descriptors allow")]
    Capacity(usize),
    #[error("the workload wants more than {0} handshakes per second")]
    Handshakes(u32),
    /// It was the oldest of the address that has the most of them.
    #[error(
        "the workload has too many clients that have not proved who they are, and no address has more of them than this one's"
    )]
    Unproven,
}

#[cfg(test)]
mod tests;
