//! Names that no other test, in this process or another, uses at the same time.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(1);

/// `sht<pid>-<n>`: names a world's cgroup subtree and prefixes its agents' instances.
pub fn unique() -> String {
    format!("sht{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A text that occurs nowhere but where this test sent it: what the tap looks for on the wire.
pub fn marker() -> String {
    format!("PLAINTEXT-MARKER-{}-END", unique())
}
