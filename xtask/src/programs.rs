//! Programs of this machine, by their names.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Looks a program up. An absolute path stands for itself.
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).find_map(|dir| existing(dir.join(name)))
}

/// The PATH, and the directories of system programs, which root's may lack.
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(dirs).unwrap_or(path)
}

pub fn existing(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_on_the_path_or_at_its_absolute_path() {
        assert!(find_program("sh").is_some());
        assert!(find_program("/bin/sh").is_some());
        assert!(find_program("/no/such/program").is_none());
    }
}
