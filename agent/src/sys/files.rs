//! Reading files that others write: configuration, certificates, keys, CRLs, names; and writing files so that nobody ever
//! reads half of one.
//!
//! Such files are read here and nowhere else; the test at the end of `tests.rs` checks it. A path can
//! lead to anything: to a FIFO, where the agent would wait for whoever put it there; to a device without an end, with
//! all memory locked; to a file that grows while it is read; to one that anybody may write. What the kernel itself
//! writes (`/proc`, `/sys`, cgroups) does not count.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tempfile::Builder;

/// What files of one kind may be.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// In bytes.
    pub longest: u64,
    hands: Hands,
}

/// Who may own and write a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hands {
    /// Root, or the user that runs this; nobody else may write it. Such a file controls the agent.
    Own,
    /// Any one user or group: certificates are not always written by root.
    Somebodys,
}

impl Kind {
    /// Files of any owner, up to so many bytes.
    #[must_use]
    pub const fn up_to(longest: u64) -> Self {
        Self { longest, hands: Hands::Somebodys }
    }
}

const MIB: u64 = 1024 * 1024;

/// The configuration: a hundred thousand peers take some 10 MiB.
pub const CONFIGURATION: Kind = Kind { longest: 64 * MIB, hands: Hands::Own };
/// Certificates and keys: what is longer is something else.
pub const CREDENTIALS: Kind = Kind::up_to(MIB);
/// The authorities that the system trusts: some 150 of them.
pub const AUTHORITIES: Kind = Kind::up_to(8 * MIB);
/// CRLs: a million certificates revoked.
pub const CRLS: Kind = Kind::up_to(64 * MIB);
/// What is converted: objects, or a configuration.
pub const CONVERTED: Kind = Kind::up_to(64 * MIB);
/// What the agent itself has written for its next run.
pub const STATE: Kind = Kind { longest: 16 * MIB, hands: Hands::Own };

/// Why a file is not read. The caller adds its path to the message.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no such file")]
    Missing,
    #[error("permission denied")]
    Denied,
    #[error("it is {0}, not a regular file")]
    NotRegular(&'static str),
    #[error("it is longer than {} MiB, the most that such a file may have", .0 / MIB)]
    TooLong(u64),
    #[error("others than its owner may write it (mode {0:04o}); `chmod go-w` it")]
    Writable(u32),
    #[error("everybody may write it (mode {0:04o}); `chmod o-w` it")]
    WritableByAll(u32),
    #[error("it belongs to the user {0}, who could change it at any time; `chown root` it")]
    Foreign(u32),
    #[error("it is not UTF-8 from byte {0} on")]
    NotText(usize),
    #[error("{}", in_words(.0))]
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Io(error),
        }
    }
}

fn in_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ELOOP) => "there are too many symbolic links on the way to it".to_owned(),
        Some(libc::ENOTDIR) => "something on the way to it is no directory".to_owned(),
        Some(libc::EIO) => "the device cannot be read (EIO)".to_owned(),
        Some(libc::ESTALE) => "the network file system has lost it (ESTALE)".to_owned(),
        // How these answer to being opened.
        Some(libc::ENXIO) => {
            "it is a socket, or a device with nothing behind it, not a regular file".to_owned()
        }
        Some(libc::EMFILE | libc::ENFILE) => "there are too many open files".to_owned(),
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// A regular file, open for reading.
#[derive(Debug)]
pub struct Opened {
    file: File,
    metadata: Metadata,
}

/// Opens a regular file.
///
/// # Errors
/// If it cannot be opened, or is anything else.
pub fn open(path: &Path) -> Result<Opened, ReadError> {
    let mut options = OpenOptions::new();
    // Without waiting: for the other end of a FIFO, or for a terminal.
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
    let file = options.open(path)?;
    // Of the file that is open: the path may lead to another one by now.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ReadError::NotRegular(what_else(&metadata)));
    }
    Ok(Opened { file, metadata })
}

fn what_else(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

impl Opened {
    /// Permission bits.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.metadata.mode() & 0o7777
    }

    /// All of its bytes.
    ///
    /// # Errors
    /// If it is longer than files of this kind may be, in other hands, or cannot be read.
    pub fn read(self, kind: Kind) -> Result<Vec<u8>, ReadError> {
        self.check_hands(kind)?;
        let longest = kind.longest;
        // Room for all of it at once: a key that is read must not leave copies behind as the buffer grows.
        let length = self.metadata.len().min(longest);
        let mut bytes = Vec::with_capacity(length as usize + 1);
        // Not more than that, whatever the length was a moment ago.
        self.file.take(longest + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > longest {
            return Err(ReadError::TooLong(longest));
        }
        Ok(bytes)
    }

    fn check_hands(&self, kind: Kind) -> Result<(), ReadError> {
        let (mode, owner) = (self.mode(), self.metadata.uid());
        match kind.hands {
            Hands::Own if mode & 0o022 != 0 => Err(ReadError::Writable(mode)),
            Hands::Own if owner != 0 && owner != nix::unistd::geteuid().as_raw() => {
                Err(ReadError::Foreign(owner))
            }
            Hands::Somebodys if mode & 0o002 != 0 => Err(ReadError::WritableByAll(mode)),
            Hands::Own | Hands::Somebodys => Ok(()),
        }
    }
}

/// All of a regular file.
///
/// # Errors
/// As [`open`] and [`Opened::read`].
pub fn read(path: &Path, kind: Kind) -> Result<Vec<u8>, ReadError> {
    open(path)?.read(kind)
}

/// All of a regular file that is text.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, kind: Kind) -> Result<String, ReadError> {
    let text = String::from_utf8(read(path, kind)?);
    text.map_err(|error| ReadError::NotText(error.utf8_error().valid_up_to()))
}

/// What happens to a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfThere {
    Replace,
    /// It stays, and writing fails.
    Keep,
}

/// Writes a file: with its mode from the first moment on, and whole from the first moment that it is there under its
/// name, whatever happens meanwhile.
///
/// # Errors
/// If it cannot be written, or is there and stays. Then nothing has changed, unless it was no more than the folder that could not
/// be brought to the disk.
pub fn write(path: &Path, mode: u32, content: &[u8], if_there: IfThere) -> io::Result<()> {
    let mode = Permissions::from_mode(mode);
    // Removed again unless it gets the name.
    let mut file = Builder::new().permissions(mode).tempfile_in(folder(path))?;
    file.write_all(content)?;
    // Before it has its name: a file that is there but empty would be worse than the old one, or none.
    file.as_file().sync_all()?;
    match if_there {
        IfThere::Replace => file.persist(path)?,
        IfThere::Keep => file.persist_noclobber(path)?,
    };
    keep_name(path)
}

/// Copies a program, as [`write`] writes a file. `false` if it was there already, byte for byte.
///
/// # Errors
/// If it cannot be read or written.
pub fn copy_program(from: &Path, to: &Path) -> io::Result<bool> {
    const MODE: u32 = 0o755;
    let mut source = File::open(from)?;
    let length = source.metadata()?.len();
    match open(to) {
        Ok(there) if (there.metadata.len(), there.mode()) == (length, MODE) => {
            if is_same(&mut source, there.file)? {
                return Ok(false);
            }
            source.rewind()?;
        }
        _ => {}
    }
    let mut file =
        Builder::new().permissions(Permissions::from_mode(MODE)).tempfile_in(folder(to))?;
    io::copy(&mut source, file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(to)?;
    keep_name(to)?;
    Ok(true)
}

fn is_same(one: impl Read, other: impl Read) -> io::Result<bool> {
    const PIECE: usize = 64 << 10;
    let (mut one, mut other) =
        (BufReader::with_capacity(PIECE, one), BufReader::with_capacity(PIECE, other));
    loop {
        let (piece, counterpart) = (one.fill_buf()?, other.fill_buf()?);
        let length = piece.len().min(counterpart.len());
        if piece[..length] != counterpart[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(piece.is_empty() && counterpart.is_empty());
        }
        one.consume(length);
        other.consume(length);
    }
}

/// Makes sure that a file has its name also when the power fails.
fn keep_name(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests;
