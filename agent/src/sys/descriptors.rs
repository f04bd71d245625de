//! Descriptors: whether there are any left.

use std::fs::File;
use std::io;

/// # Errors
/// If so many files cannot be opened now.
pub fn can_open(count: usize) -> io::Result<()> {
    let opened: io::Result<Vec<File>> = (0..count).map(|_| File::open("/dev/null")).collect();
    opened.map(drop)
}
