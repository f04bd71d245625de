//! The files of an image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// By path in the image, without the leading slash: a directory stands before what is in it.
#[derive(Default)]
pub struct Files {
    entries: BTreeMap<String, Entry>,
}

/// Permissions are the lowest twelve bits. Everything is root's.
pub enum Entry {
    Directory { mode: u32 },
    Copy { mode: u32, from: PathBuf },
    Text { mode: u32, text: String },
    Link { to: PathBuf },
}

impl Files {
    /// What programs expect of any system.
    pub fn base() -> Self {
        let mut files = Self::default();
        files.add_text("/etc/passwd", PASSWD);
        files.add_text("/etc/group", GROUP);
        files.add_text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
        files.add_dir("/tmp", 0o1777);
        files.add_dir("/run", 0o755);
        files.add_dir("/var/log", 0o755);
        files
    }

    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    pub fn has(&self, at: &str) -> bool {
        self.entries.contains_key(at.trim_matches('/'))
    }

    pub fn add_dir(&mut self, at: &str, mode: u32) {
        self.add(at, Entry::Directory { mode });
    }

    pub fn add_text(&mut self, at: &str, text: &str) {
        self.add(at, Entry::Text { mode: 0o644, text: text.to_owned() });
    }

    /// A program, as it is on this machine.
    pub fn add_file(&mut self, at: &str, from: &Path) {
        self.add(at, Entry::Copy { mode: 0o755, from: from.to_owned() });
    }

    /// Everything in a directory, at the same place below the image's root. Links stay what they are; a file is
    /// read when the image is written. Devices and sockets have no place in an image.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn add_tree(&mut self, root: &Path) -> Result<()> {
        self.add_below(root, Path::new("/"))
    }

    fn add_below(&mut self, root: &Path, at: &Path) -> Result<()> {
        let dir = root.join(at.strip_prefix("/").unwrap_or(at));
        let entries =
            fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let entry = entry.context("an entry of a directory")?;
            let (from, at) = (entry.path(), at.join(entry.file_name()));
            let meta = fs::symlink_metadata(&from).with_context(|| from.display().to_string())?;
            let path = at.to_str().with_context(|| format!("{} is not UTF-8", at.display()))?;
            let mode = meta.permissions().mode() & 0o7777;
            if meta.is_symlink() {
                let to = fs::read_link(&from).with_context(|| from.display().to_string())?;
                self.add(path, Entry::Link { to });
            } else if meta.is_dir() {
                self.add(path, Entry::Directory { mode });
                self.add_below(root, &at)?;
            } else if meta.is_file() {
                self.add(path, Entry::Copy { mode, from });
            }
        }
        Ok(())
    }

    /// With the directories that it is in.
    fn add(&mut self, at: &str, entry: Entry) {
        let at = at.trim_matches('/');
        for (end, _) in at.match_indices('/') {
            let above = at[..end].to_owned();
            self.entries.entry(above).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.entries.insert(at.to_owned(), entry);
    }
}

/// Those that Debian's packages would have made.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
postgres:x:100:100:postgres:/var/lib/postgresql:/bin/sh
redis:x:101:101:redis:/var/lib/redis:/usr/sbin/nologin
";
const GROUP: &str = "root:x:0:
adm:x:4:
www-data:x:33:
nogroup:x:65534:
postgres:x:100:
redis:x:101:
";
