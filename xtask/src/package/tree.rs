//! The files of a package, as they are to be on a host, below a directory that goes with this value.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::shown;
use crate::workspace;

const FILE: u32 = 0o644;
pub const PROGRAM: u32 = 0o755;
const DIRECTORY: u32 = 0o755;

pub struct Tree(TempDir);

impl Tree {
    /// An empty one.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn new() -> Result<Self> {
        let dir = workspace::target_dir();
        fs::create_dir_all(&dir).with_context(|| shown(&dir))?;
        Ok(Self(tempfile::Builder::new().prefix("package-").tempdir_in(dir)?))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// An empty directory, with whatever is above it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_dir(&self, path: &str) -> Result<PathBuf> {
        let dir = self.path().join(path);
        fs::create_dir_all(&dir).with_context(|| shown(&dir))?;
        Ok(dir)
    }

    /// A file that everybody may read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.write_as(FILE, path, content)
    }

    /// A file with a mode of its own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_as(&self, mode: u32, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let file = self.path().join(path);
        if let Some(above) = file.parent() {
            fs::create_dir_all(above).with_context(|| shown(above))?;
        }
        fs::write(&file, content).with_context(|| shown(&file))?;
        set_mode(&file, mode)
    }

    /// A file of the repository.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy(&self, from: &str, path: &str) -> Result<()> {
        self.write(path, read(&workspace::root().join(from))?)
    }

    /// Every file that is no directory, sorted, by its path on a host without the first slash.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        walk(self.path(), &mut |path, is_dir| {
            if !is_dir {
                let below = path.strip_prefix(self.path())?;
                files.push(below.to_str().context("a file's name")?.to_owned());
            }
            Ok(())
        })?;
        files.sort();
        Ok(files)
    }

    /// Bytes of all files together.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn size(&self) -> Result<u64> {
        let files = self.files()?.into_iter();
        let sizes = files.map(|file| Ok(fs::metadata(self.path().join(file))?.len()));
        sizes.sum()
    }

    /// Gives everything its date and its mode, whatever umask whoever makes a package has. What its owner may run is a program.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn finish(&self, date: SystemTime) -> Result<()> {
        walk(self.path(), &mut |path, is_dir| {
            let file = File::open(path).with_context(|| shown(path))?;
            let found = file.metadata().with_context(|| shown(path))?.permissions().mode();
            let mode = match (is_dir, found & 0o100) {
                (true, _) => DIRECTORY,
                (false, 0) => FILE,
                (false, _) => PROGRAM,
            };
            set_mode(path, mode)?;
            file.set_modified(date).with_context(|| shown(path))
        })
    }
}

/// Visits everything below a directory, then the directory itself.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path, bool) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| shown(dir))? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, visit)?;
        } else {
            visit(&path, false)?;
        }
    }
    visit(dir, true)
}

pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).with_context(|| shown(path))
}

pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn modes_and_dates_are_those_that_were_said() {
        let tree = Tree::new().unwrap();
        tree.write("a/b/file", "x").unwrap();
        tree.write_as(PROGRAM, "a/program", "xyz").unwrap();
        // As with the umask 077.
        for (path, mode) in [("a", 0o700), ("a/b/file", 0o600), ("a/program", 0o700)] {
            set_mode(&tree.path().join(path), mode).unwrap();
        }
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        tree.finish(date).unwrap();
        for (path, mode) in
            [("a", 0o755), ("a/b", 0o755), ("a/b/file", 0o644), ("a/program", 0o755)]
        {
            let found = fs::metadata(tree.path().join(path)).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, mode, "{path}");
            assert_eq!(found.modified().unwrap(), date, "{path}");
        }
        assert_eq!(tree.files().unwrap(), ["a/b/file", "a/program"]);
        assert_eq!(tree.size().unwrap(), 4);
    }
}
