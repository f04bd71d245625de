//! The plugin on a node: its program among the runtime's plugins, and its entry in the network's configuration.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PLUGIN;
use super::config::{AllowedPod, Own};
use super::conflist::{ConflistError, with_plugin, without_plugin};
use crate::sys::files::{self, IfThere, ReadError};

/// Where the plugin goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Installation {
    /// Where the runtime looks for networks.
    pub conf_dir: PathBuf,
    /// Where it looks for plugins.
    pub bin_dir: PathBuf,
}

impl Default for Installation {
    /// Where runtimes look unless they are told otherwise (containerd, `docs/cri/config.md`).
    fn default() -> Self {
        Self { conf_dir: "/etc/cni/net.d".into(), bin_dir: "/opt/cni/bin".into() }
    }
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub path: PathBuf,
    pub done: &'static str,
}

/// Why it was not, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(
        "{}: there is no network's configuration yet; the cluster's network plugin writes it, so try again once the node is \
         Ready", .0.display()
    )]
    NoNetwork(PathBuf),
    #[error(
        "{}: the runtime takes this file first, and it is the configuration of one plugin, which no other can be added to; \
         make it a list (`.conflist`, CNI specification, section 1)", .0.display()
    )]
    NotAList(PathBuf),
    #[error("{}: {error}", path.display())]
    Conflist { path: PathBuf, error: ConflistError },
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: ReadError },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl InstallError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }

    fn conflist(path: &Path) -> impl FnOnce(ConflistError) -> Self {
        let path = path.to_owned();
        move |error| Self::Conflist { path, error }
    }
}

impl Installation {
    /// Installs this program, to ask the agent at `socket`. Says what was not so already.
    ///
    /// # Errors
    /// If something cannot be written, or there is no network that the plugin could be added to.
    pub fn install(
        &self,
        program: &Path,
        socket: &Path,
        allow: &[AllowedPod],
    ) -> Result<Vec<Change>, InstallError> {
        #[derive(Serialize)]
        struct Entry<'e> {
            r#type: &'e str,
            #[serde(flatten)]
            own: Own,
        }
        let own = Own { socket: socket.to_owned(), allow: allow.to_vec() };
        let entry = serde_json::to_string(&Entry { r#type: PLUGIN, own })
            .map_err(|error| InstallError::io(socket)(error.into()))?;
        let mut changes = Vec::new();
        // A network that names a plugin which is not there is one that no pod gets.
        let conflist = self.first_network()?;
        let plugin = self.bin_dir.join(PLUGIN);
        if files::copy_program(program, &plugin).map_err(InstallError::io(&plugin))? {
            changes.push(Change { path: plugin, done: "copied" });
        }
        let add = |text: &str| with_plugin(text, PLUGIN, &entry);
        changes.extend(edit(&conflist, "added sheath-cni to", add)?);
        Ok(changes)
    }

    /// Takes the plugin out of every network, and then away. Says what was not so already.
    ///
    /// # Errors
    /// If something cannot be written. The program stays while a network names it.
    pub fn uninstall(&self) -> Result<Vec<Change>, InstallError> {
        let mut changes = Vec::new();
        for path in self.files()? {
            // Also those that somebody has put aside, and may put back.
            if name(&path).contains(".conflist") && may_name_it(&path)? {
                let remove = |text: &str| without_plugin(text, PLUGIN);
                changes.extend(edit(&path, "removed sheath-cni from", remove)?);
            }
        }
        let plugin = self.bin_dir.join(PLUGIN);
        match fs::remove_file(&plugin) {
            Ok(()) => changes.push(Change { path: plugin, done: "removed" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(InstallError::io(&plugin)(error)),
        }
        Ok(changes)
    }

    /// The file that the runtime takes: the first by name of those that it would read (containernetworking/cni,
    /// `libcni/conf.go`).
    fn first_network(&self) -> Result<PathBuf, InstallError> {
        let is_read = |path: &PathBuf| {
            let extension = path.extension().and_then(OsStr::to_str);
            matches!(extension, Some("conf" | "conflist" | "json"))
        };
        let first = self.files()?.into_iter().find(is_read);
        let first = first.ok_or_else(|| InstallError::NoNetwork(self.conf_dir.clone()))?;
        if first.extension() != Some(OsStr::new("conflist")) {
            return Err(InstallError::NotAList(first));
        }
        Ok(first)
    }

    /// The files of the directory, by name.
    fn files(&self) -> Result<Vec<PathBuf>, InstallError> {
        let cannot = || InstallError::io(&self.conf_dir);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.conf_dir).map_err(cannot())? {
            let path = entry.map_err(cannot())?.path();
            if path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// False for files without the plugin's name: what is wrong with them is not our affair.
fn may_name_it(path: &Path) -> Result<bool, InstallError> {
    let unreadable = |error| InstallError::Unreadable { path: path.to_owned(), error };
    let bytes = files::read(path, files::CONFIGURATION).map_err(unreadable)?;
    Ok(bytes.windows(PLUGIN.len()).any(|bytes| bytes == PLUGIN.as_bytes()))
}

fn edit(
    path: &Path,
    done: &'static str,
    change: impl FnOnce(&str) -> Result<Option<String>, ConflistError>,
) -> Result<Option<Change>, InstallError> {
    let unreadable = |error| InstallError::Unreadable { path: path.to_owned(), error };
    // A link stays a link.
    let target = fs::canonicalize(path).map_err(InstallError::io(path))?;
    let mode = files::open(&target).map_err(unreadable)?.mode();
    let text = files::read_text(&target, files::CONFIGURATION).map_err(unreadable)?;
    let Some(changed) = change(&text).map_err(InstallError::conflist(path))? else {
        return Ok(None);
    };
    files::write(&target, mode, changed.as_bytes(), IfThere::Replace)
        .map_err(InstallError::io(path))?;
    Ok(Some(Change { path: path.to_owned(), done }))
}

#[cfg(test)]
mod tests;
