//! Names of quantities that several loads measure.

/// How many or how much in a second.
pub const RATE: &str = "rate";

/// The time within which half of the answers, or all but one in a hundred, were there.
pub const P50: &str = "p50";
pub const P99: &str = "p99";

/// Processor time of each side.
pub const CPU_CLIENT: &str = "cpu_client";
pub const CPU_SERVER: &str = "cpu_server";
