//! Reading files that somebody else puts there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file, and nothing else: a FIFO in its place would have the agent wait for whoever put it
/// there.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Longest file with certificates or keys that is read: what is longer is something else.
pub const LONGEST: u64 = 1024 * 1024;

/// All of a regular file that is at most `longest` bytes long.
pub fn read(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    read_all(open(path)?, longest)
}

/// All of a file that is at most `longest` bytes long.
pub fn read_all(file: File, longest: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().min(longest);
    // Room for all of it at once: a key that is read must not leave copies behind as the buffer grows.
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("longer than {} MiB", longest >> 20),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("tls.key");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        assert_eq!(open(&fifo).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(open(directory.path()).is_err());
        assert!(open(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::write(&path, [7; 10]).unwrap();
        assert_eq!(read_all(open(&path).unwrap(), 10).unwrap(), [7; 10]);
        assert_eq!(
            read_all(open(&path).unwrap(), 9).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }
}
