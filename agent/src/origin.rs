//! Where a part of the desired state was written.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a workload, a peer or a rule was written, and so where to change it.
///
/// It prints as a key, `peers[2]` or `workloads[web].inbound.allow`; the access log names rules in the same way. A clone
/// allocates nothing. Origins of one file are ordered as in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Written nowhere: built in, or a default.
    BuiltIn,
    /// An entry of a file, or a key within one.
    File(Arc<FileKey>),
    /// Resolved by DNS, from this name.
    Dns(Arc<str>),
    /// A pod of Kubernetes, or its namespace, whose label says so.
    Pod { namespace: Arc<str>, name: Arc<str> },
    /// The controller's directory of the cluster.
    Directory,
}

/// A key of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The file, as it was named on the command line.
    pub file: Arc<Path>,
    /// The list at the top of the file, as `peers`.
    pub list: &'static str,
    /// Which entry of the list, counted from zero.
    pub index: usize,
    /// Of the entry, where entries have names.
    pub name: Option<Arc<str>>,
    /// The key within the entry, as `inbound.allow`; empty for the entry as a whole.
    pub field: &'static str,
}

impl Origin {
    /// An entry of a list whose entries have no names.
    #[must_use]
    pub fn indexed(file: &Arc<Path>, list: &'static str, index: usize) -> Self {
        Self::File(Arc::new(FileKey { file: file.clone(), list, index, name: None, field: "" }))
    }

    /// An entry of a list whose entries have names.
    #[must_use]
    pub fn named(file: &Arc<Path>, list: &'static str, index: usize, name: &str) -> Self {
        let name = Some(name.into());
        Self::File(Arc::new(FileKey { file: file.clone(), list, index, name, field: "" }))
    }

    /// A key within this entry. Origins that are not entries of a file stay as they are.
    #[must_use]
    pub fn field(&self, field: &'static str) -> Self {
        match self {
            Self::File(key) => Self::File(Arc::new(FileKey { field, ..FileKey::clone(key) })),
            other => other.clone(),
        }
    }

    /// The file, if it was written in one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(key) => Some(&key.file),
            Self::BuiltIn | Self::Dns(_) | Self::Pod { .. } | Self::Directory => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::File(key) => key.fmt(f),
            Self::Dns(name) => write!(f, "DNS of {name}"),
            Self::Directory => f.write_str("directory"),
            Self::Pod { namespace, name } => write!(f, "pod {namespace}/{name}"),
        }
    }
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}[{name}]", self.list)?,
            None => write!(f, "{}[{}]", self.list, self.index)?,
        }
        if self.field.is_empty() { Ok(()) } else { write!(f, ".{}", self.field) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_shown_as_the_key_that_was_written() {
        let file: Arc<Path> = Path::new("/etc/sheath/sheath.yaml").into();
        let peer = Origin::indexed(&file, "peers", 2);
        let web = Origin::named(&file, "workloads", 0, "web");
        for (origin, shown) in [
            (&peer, "peers[2]"),
            (&web, "workloads[web]"),
            (&web.field("inbound.allow"), "workloads[web].inbound.allow"),
            (&Origin::BuiltIn, "built-in"),
            (&Origin::BuiltIn.field("allow"), "built-in"),
        ] {
            assert_eq!(origin.to_string(), shown);
        }
        assert_eq!(peer.file(), Some(&*file));
        assert_eq!(Origin::BuiltIn.file(), None);
    }

    #[test]
    fn origins_are_ordered_as_they_are_written() {
        let file: Arc<Path> = Path::new("a.yaml").into();
        let other: Arc<Path> = Path::new("b.yaml").into();
        assert_eq!(Origin::indexed(&file, "peers", 1), Origin::indexed(&file, "peers", 1));
        assert_ne!(Origin::indexed(&file, "peers", 1), Origin::indexed(&other, "peers", 1));
        assert!(Origin::indexed(&file, "peers", 9) < Origin::indexed(&file, "peers", 10));
        let [first, second] = ["web", "db"];
        assert!(
            Origin::named(&file, "workloads", 0, first)
                < Origin::named(&file, "workloads", 1, second)
        );
    }
}
