//! What is said on a machine's virtual serial port: JSON, one object a line, in both directions.

use serde::{Deserialize, Serialize};

/// The port's name, by which a machine finds it (`/sys/class/virtio-ports/*/name`).
pub const PORT: &str = "dev.sheath.tests";

/// To the machine: run a script of `sh`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by who asks; the answer bears it.
    pub id: u64,
    pub script: String,
    /// After so many milliseconds whatever runs is killed.
    pub limit: u64,
}

/// From the machine.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// It is there, after each boot.
    Hello,
    Done {
        id: u64,
        ended: Ended,
    },
}

/// How a script ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ended {
    /// The exit status; `None` if it was killed, as it is after its time.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn success(&self) -> bool {
        self.status == Some(0)
    }
}
