//! Whether file descriptors are left.

use std::fs::File;
use std::io;

/// # Errors
/// If `count` files cannot be opened now.
pub fn can_open(count: usize) -> io::Result<()> {
    let opened: io::Result<Vec<File>> = (0..count).map(|_| File::open("/dev/null")).collect();
    opened.map(drop)
}
