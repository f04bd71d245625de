//! Unix sockets of the agent's in the file system, for root alone. A socket takes its place in one step, and whoever closes
//! one removes it only if it is still its own: the next agent may have put another one there meanwhile.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A socket that has not taken its place yet: nobody finds it there. Its file goes with this.
#[derive(Debug)]
pub struct Prepared {
    listener: UnixListener,
    file: SocketFile,
    place: PathBuf,
}

/// The file of a socket, removed with this value.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

/// Opens a socket beside the place that it is for. What that place has to be free of is not there then: only a socket may be
/// replaced. Needs a tokio runtime.
///
/// # Errors
/// If it cannot be opened, or something else than a socket is in the place.
pub fn prepare(place: &Path) -> io::Result<Prepared> {
    match fs::symlink_metadata(place) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("something that is no socket is in its place"));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Shorter than the endings of all that is prepared: what fits as a path of a socket still does.
    let path = place.with_extension("new");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    let id = identity(&path)?;
    let file = SocketFile { path, id };
    fs::set_permissions(&file.path, Permissions::from_mode(0o600))?;
    Ok(Prepared { listener, file, place: place.to_owned() })
}

/// Opens a socket in its place.
///
/// # Errors
/// As for [`prepare`], and if it cannot be moved to its place.
pub fn bind(place: &Path) -> io::Result<(UnixListener, SocketFile)> {
    prepare(place)?.publish()
}

impl Prepared {
    /// Takes the place: from now on, this is the socket that is found there.
    ///
    /// # Errors
    /// That of rename(2); then whoever was found there still is.
    pub fn publish(self) -> io::Result<(UnixListener, SocketFile)> {
        let Self { listener, mut file, place } = self;
        fs::rename(&file.path, &place)?;
        file.path = place;
        Ok((listener, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|id| id == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "socket not removed");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn one_takes_the_others_place_in_one_step_and_the_other_leaves_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a.sock");
        let (first, first_file) = bind(&place).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o600);
        let next = prepare(&place).unwrap();
        UnixStream::connect(&place).unwrap();
        first.accept().await.unwrap();
        let (second, second_file) = next.publish().unwrap();
        drop((first, first_file));
        UnixStream::connect(&place).unwrap();
        second.accept().await.unwrap();
        drop(second_file);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_an_earlier_agent_has_left_is_replaced_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&place).unwrap());
        drop(std::os::unix::net::UnixListener::bind(place.with_extension("new")).unwrap());
        drop(bind(&place).unwrap());
        assert!(!place.exists());
        fs::write(&place, "").unwrap();
        assert!(bind(&place).is_err());
        assert!(place.is_file(), "it is somebody else's");
    }
}
