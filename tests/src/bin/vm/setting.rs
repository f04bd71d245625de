//! What every scenario is given.

use sheath_tests::vm::qemu::Acceleration;
use sheath_tests::vm::{Images, Kernel};

/// Machines are made of this.
pub struct Setting {
    pub images: Images,
    pub kernel: Kernel,
    pub accel: Acceleration,
    /// How many a machine has.
    pub processors: u32,
}
