//! The listening sockets of the namespaces in which they matter.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use super::namespaces::Namespaces;
use crate::capture::namespace::owned_sockets::{self, OwnedSocket};

/// The sockets that listen, by inode number of the namespace, and whose they are.
#[derive(Debug)]
pub struct Listening {
    /// Where the cgroup v2 hierarchy is mounted.
    mount: PathBuf,
    sockets: HashMap<u64, Vec<OwnedSocket>>,
    problem: Option<String>,
}

impl Listening {
    pub fn new(mount: PathBuf) -> Self {
        Self { mount, sockets: HashMap::new(), problem: None }
    }

    /// Lists those who listen in these namespaces, as far as they are served, and forgets all others. Where it cannot be
    /// seen, what was known still holds.
    pub fn update(&mut self, wanted: &BTreeSet<u64>, namespaces: &Namespaces) {
        self.sockets.retain(|inode, _| wanted.contains(inode));
        self.problem = None;
        for inode in wanted {
            let Some(namespace) = namespaces.get(*inode) else {
                continue;
            };
            match owned_sockets::listening(namespace.netns(), &self.mount) {
                Ok(found) => {
                    self.sockets.insert(*inode, found);
                }
                Err(error) => {
                    tracing::debug!(namespace = inode, %error, "listeners not seen");
                    self.problem =
                        Some(format!("the sockets on its ports cannot be listed: {error}"));
                }
            }
        }
    }

    /// Forgets namespaces that are not served any more.
    pub fn keep_only(&mut self, namespaces: &Namespaces) {
        self.sockets.retain(|inode, _| namespaces.get(*inode).is_some());
    }

    /// Why the sockets of some namespace could not be listed, if so.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The listening sockets of a namespace; `None` where they do not matter or are not known.
    pub fn in_namespace(&self, inode: u64) -> Option<&[OwnedSocket]> {
        self.sockets.get(&inode).map(Vec::as_slice)
    }

    /// All listening sockets, by namespace.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[OwnedSocket])> {
        self.sockets.iter().map(|(inode, sockets)| (*inode, sockets.as_slice()))
    }
}
