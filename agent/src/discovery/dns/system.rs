//! The files of the host about names, `/etc/hosts` and `/etc/resolv.conf`. Both are read again whenever they change.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::hosts::Hosts;
use super::resolv_conf::ResolvConf;
use crate::sys::files::{self, Kind};
use crate::sys::watch::Watch;

/// Longest files that are read. Some hosts have long blocklists in `/etc/hosts`.
const LONGEST_RESOLV_CONF: u64 = 1 << 20;
const LONGEST_HOSTS: u64 = 16 << 20;
/// Where the files are.
#[derive(Clone, Debug)]
pub struct Paths {
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

/// Why there is no name server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoServers {
    #[error("{} names no name server", .0.display())]
    None(PathBuf),
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
}

/// Both files, as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Or the reason why there is none.
    pub resolver: Result<ResolvConf, NoServers>,
    pub hosts: Hosts,
    /// About lines that were ignored.
    warnings: Vec<String>,
}

impl System {
    pub fn read(paths: &Paths) -> Self {
        let mut warnings = Vec::new();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let resolver = match files::read(&paths.resolv_conf, Kind::up_to(LONGEST_RESOLV_CONF)) {
            Ok(bytes) => ResolvConf::parse(&text(bytes), &mut warnings)
                .ok_or_else(|| NoServers::None(paths.resolv_conf.clone())),
            Err(error) => Err(NoServers::Unreadable {
                path: paths.resolv_conf.clone(),
                reason: error.to_string(),
            }),
        };
        // A host may do without it.
        let hosts =
            files::read(&paths.hosts, Kind::up_to(LONGEST_HOSTS)).map(text).unwrap_or_default();
        for warning in &mut warnings {
            *warning = format!("{}: {warning}", paths.resolv_conf.display());
        }
        Self { resolver, hosts: Hosts(hosts), warnings }
    }

    fn warn(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }
}

/// The files, kept up to date as long as this lives.
#[derive(Debug)]
pub struct HostFiles {
    files: Files,
    task: AbortHandle,
}

#[derive(Clone, Debug)]
struct Files {
    paths: Paths,
    system: watch::Sender<Arc<System>>,
}

impl Drop for HostFiles {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HostFiles {
    /// Reads the files and watches them. Needs a tokio runtime.
    pub fn start(paths: Paths) -> Self {
        let system = System::read(&paths);
        system.warn();
        let files = Files { paths, system: watch::Sender::new(Arc::new(system)) };
        let task = tokio::spawn(files.clone().follow()).abort_handle();
        Self { files, task }
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<System>> {
        self.files.system.subscribe()
    }

    /// Reads the files again now.
    pub fn refresh(&self) {
        self.files.refresh();
    }
}

impl Files {
    async fn follow(self) {
        let mut watched = self.watched();
        let mut watch = Watch::new(watched.clone());
        loop {
            // They may have changed before they were watched.
            self.refresh();
            watch.changed().await;
            // A symbolic link may have changed.
            let now = self.watched();
            if now != watched {
                watch = Watch::new(now.clone());
                watched = now;
            }
        }
    }

    /// Reads the files again, and publishes them if they have changed.
    fn refresh(&self) {
        let now = System::read(&self.paths);
        self.system.send_if_modified(|known| {
            let is_new = **known != now;
            if is_new {
                tracing::info!("the host's name servers or its file of names have changed");
                now.warn();
                *known = Arc::new(now);
            }
            is_new
        });
    }

    /// The files, and the targets of their symbolic links.
    fn watched(&self) -> Vec<PathBuf> {
        let own = [&self.paths.resolv_conf, &self.paths.hosts];
        let meant = own.map(|path| path.canonicalize().ok());
        own.into_iter().cloned().chain(meant.into_iter().flatten()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[tokio::test]
    async fn what_changes_is_told_at_once_however_it_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("run")).unwrap();
        fs::write(at("run/stub"), "nameserver 10.0.0.1\n").unwrap();
        std::os::unix::fs::symlink("run/stub", at("resolv.conf")).unwrap();
        let paths = Paths { resolv_conf: at("resolv.conf"), hosts: at("hosts") };
        let followed = HostFiles::start(paths);
        let mut system = followed.subscribe();
        let first = |system: &watch::Receiver<Arc<System>>| {
            let known = system.borrow().resolver.clone();
            known.map(|resolver| resolver.servers[0].address.to_string())
        };
        assert_eq!(first(&system).unwrap(), "10.0.0.1");
        let mut next = async |change: &dyn Fn()| {
            // Whoever watches has begun to.
            tokio::time::sleep(Duration::from_millis(100)).await;
            change();
            let told = tokio::time::timeout(Duration::from_secs(10), system.changed());
            told.await.unwrap().unwrap();
            first(&system)
        };
        // Where the link leads, the link itself, and the other file.
        let written = next(&|| fs::write(at("run/stub"), "nameserver 10.0.0.2\n").unwrap()).await;
        assert_eq!(written.unwrap(), "10.0.0.2");
        let moving = || {
            fs::write(at("new"), "nameserver 10.0.0.3\n").unwrap();
            fs::rename(at("new"), at("resolv.conf")).unwrap();
        };
        assert_eq!(next(&moving).await.unwrap(), "10.0.0.3");
        let gone = next(&|| fs::remove_file(at("resolv.conf")).unwrap()).await;
        assert!(gone.unwrap_err().to_string().contains("cannot read"));
        let _ = next(&|| fs::write(at("hosts"), "10.0.0.9 db\n").unwrap()).await;
        assert_eq!(followed.files.system.borrow().hosts.addresses("db").len(), 1);
    }
}
