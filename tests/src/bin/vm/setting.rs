//! What every scenario is given.

use sheath_tests::vm::qemu::Acceleration;
use sheath_tests::vm::results::{Outcome, Place};
use sheath_tests::vm::{Images, Kernel};

/// Machines are made of this.
pub struct Setting {
    pub images: Images,
    pub kernel: Kernel,
    pub accel: Acceleration,
    /// How many a machine has.
    pub processors: u32,
    /// Today, as in `2026-11-28`.
    pub date: String,
}

impl Setting {
    /// What was seen of a scenario here.
    pub fn outcome(&self, scenario: &str, is_ok: bool, seconds: f64, detail: String) -> Outcome {
        let [release, package, version, suite] = self.kernel.version();
        let processors = self.accel.describe().to_owned();
        Outcome {
            kernel: self.kernel.name.clone(),
            scenario: scenario.to_owned(),
            is_ok,
            seconds: seconds.round() as u64,
            detail,
            date: self.date.clone(),
            on: Place { release, package, version, suite, processors },
        }
    }
}
