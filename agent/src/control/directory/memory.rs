//! A file with the directory as it was last known, for the next run of the agent: known pods stay known while the controller is
//! away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::controller_api::services::Services as ServicesMessage;
use crate::directory::{Collected, Directory, Entry, Names, Ports, Position, Standing};
use crate::peer::UidHash;
use crate::services::{self, Catalogue, Change, Node};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::sys::files::{self, IfThere, ReadError};

/// The shape of the file; one of another is not read.
const VERSION: u32 = 2;

/// The file.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    trust_domain: TrustDomain,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    trust_domain: String,
    epoch: u64,
    sequence: u64,
    ranges: Vec<String>,
    identities: Vec<String>,
    nodes: Vec<String>,
    entries: Vec<(IpAddr, u64, KeptStanding)>,
    /// The node, its zone, and messages that tell of all Services.
    node: String,
    zone: Option<String>,
    services: Vec<Vec<u8>>,
}

/// Indices count from 0.
#[derive(Serialize, Deserialize)]
enum KeptStanding {
    Plain,
    Pending(u32),
    Protected(u32, Option<Vec<u16>>),
}

impl Memory {
    #[must_use]
    pub fn new(path: PathBuf, trust_domain: TrustDomain) -> Self {
        Self { path, trust_domain }
    }

    /// `None` if the file is missing, or is not one that this agent has written for this trust domain.
    #[must_use]
    pub fn recall(&self) -> Option<(Collected, Vec<Change>)> {
        let problem = match files::read(&self.path, files::STATE) {
            Ok(bytes) => match self.parsed(&bytes) {
                Some(known) => return Some(known),
                None => "it is damaged, of another version or of another trust domain".to_owned(),
            },
            Err(ReadError::Missing) => return None,
            Err(error) => error.to_string(),
        };
        let file = self.path.display();
        tracing::warn!(%file, problem, "the directory is not read from the file");
        None
    }

    fn parsed(&self, bytes: &[u8]) -> Option<(Collected, Vec<Change>)> {
        // The version first: what follows may be of another shape.
        let (version, _) = postcard::take_from_bytes::<u32>(bytes).ok()?;
        let kept: Kept = (version == VERSION).then(|| postcard::from_bytes(bytes).ok())??;
        if kept.trust_domain != self.trust_domain.to_string() {
            return None;
        }
        let mut names = Names::default();
        let mut identities = Vec::new();
        for text in &kept.identities {
            let id: SpiffeId = text.parse().ok()?;
            identities.push(names.identity(&id));
        }
        let nodes: Vec<Arc<str>> = kept.nodes.iter().map(|name| name.as_str().into()).collect();
        let Kept { epoch, sequence, .. } = kept;
        let mut all = Collected::begin(Position { epoch, sequence });
        all.set_ranges(kept.ranges.iter().map(|text| text.parse().ok()).collect::<Option<_>>()?);
        for (address, uid, standing) in kept.entries {
            let standing = match standing {
                KeptStanding::Plain => Standing::Plain,
                KeptStanding::Pending(node) => {
                    Standing::Pending { node: nodes.get(node as usize)?.clone() }
                }
                KeptStanding::Protected(identity, ports) => Standing::Protected {
                    identity: identities.get(identity as usize)?.clone(),
                    ports: ports.map_or(Ports::Every, |ports| Ports::These(ports.into())),
                },
            };
            all.add(address, Entry { uid: UidHash(uid), standing });
        }
        let mut services =
            vec![Change::Node(Node { name: kept.node.into(), zone: kept.zone.map(Into::into) })];
        for bytes in kept.services {
            let message = ServicesMessage::decode(&bytes[..]).ok()?;
            services.extend(services::decode(message).ok()?);
        }
        Some((all, services))
    }

    /// Keeps a state for the next run. Whoever cannot goes on without, and the log says why. Returns the bytes of the file.
    pub fn keep(&self, directory: &Directory, catalogue: &Catalogue) -> usize {
        let Some(kept) = self.kept(directory, catalogue) else {
            return 0;
        };
        let bytes = postcard::to_allocvec(&kept).map_err(std::io::Error::other);
        let written = bytes.and_then(|bytes| {
            files::write(&self.path, 0o600, &bytes, IfThere::Replace).map(|()| bytes.len())
        });
        written.unwrap_or_else(|error| {
            tracing::warn!(file = %self.path.display(), %error, "the directory is not saved");
            0
        })
    }

    fn kept(&self, directory: &Directory, catalogue: &Catalogue) -> Option<Kept> {
        let Position { epoch, sequence } = directory.position()?;
        let (mut identities, mut nodes) = (Indices::default(), Indices::default());
        let mut entries = Vec::with_capacity(directory.len());
        for (address, Entry { uid, standing }) in directory.entries() {
            let standing = match standing {
                Standing::Plain => KeptStanding::Plain,
                Standing::Pending { node } => KeptStanding::Pending(nodes.of(node)),
                Standing::Protected { identity, ports } => {
                    let ports = match ports {
                        Ports::Every => None,
                        Ports::These(ports) => Some(ports.to_vec()),
                    };
                    KeptStanding::Protected(identities.of(identity.id.as_str()), ports)
                }
            };
            entries.push((*address, uid.0, standing));
        }
        Some(Kept {
            version: VERSION,
            trust_domain: self.trust_domain.to_string(),
            epoch,
            sequence,
            ranges: directory.ranges().iter().map(IpNet::to_string).collect(),
            identities: identities.all,
            nodes: nodes.all,
            entries,
            node: catalogue.node().name.to_string(),
            zone: catalogue.node().zone.as_ref().map(ToString::to_string),
            services: services::encode(&catalogue.all())
                .iter()
                .map(ServicesMessage::encode_to_vec)
                .collect(),
        })
    }
}

/// Texts by index.
#[derive(Default)]
struct Indices<'t> {
    known: HashMap<&'t str, u32>,
    all: Vec<String>,
}

impl<'t> Indices<'t> {
    fn of(&mut self, text: &'t str) -> u32 {
        *self.known.entry(text).or_insert_with(|| {
            self.all.push(text.to_owned());
            self.all.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing::{address, any_entry};
    use crate::services::testing::{catalogue, endpoint, service, slice};
    use proptest::prelude::*;

    fn memory(directory: &tempfile::TempDir, trust_domain: &str) -> Memory {
        Memory::new(directory.path().join("directory.state"), trust_domain.parse().unwrap())
    }

    proptest! {
        #[test]
        fn what_is_kept_is_recalled(entries in prop::collection::vec((0..9_u8, any_entry()), 0..9)) {
            let directory = tempfile::tempdir().unwrap();
            let memory = memory(&directory, "example.org");
            let mut all = Collected::begin(Position { epoch: 5, sequence: 6 });
            all.set_ranges(vec!["10.1.0.0/16".parse().unwrap()]);
            entries.into_iter().for_each(|(n, entry)| all.add(address(n), entry));
            let (known, _) = all.complete(&Directory::default());
            memory.keep(&known, &catalogue());
            let recalled = memory.recall().unwrap().0.complete(&Directory::default()).0;
            prop_assert_eq!((recalled.position(), recalled.ranges()), (known.position(), known.ranges()));
            prop_assert_eq!(recalled.len(), known.len());
            for (address, entry) in known.entries() {
                prop_assert_eq!(recalled.entry(*address), Some(entry));
            }
        }

        #[test]
        fn a_damaged_file_is_not_believed(at: prop::sample::Index, byte: u8) {
            let directory = tempfile::tempdir().unwrap();
            let memory = memory(&directory, "example.org");
            let mut all = Collected::begin(Position { epoch: 5, sequence: 6 });
            all.add(address(1), crate::directory::testing::protected(1, "web"));
            memory.keep(&all.complete(&Directory::default()).0, &catalogue());
            let mut bytes = std::fs::read(&memory.path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            std::fs::write(&memory.path, &bytes[..]).unwrap();
            // Whatever it says, it says it without a panic.
            let _ = memory.recall();
            std::fs::write(&memory.path, &bytes[..at]).unwrap();
            prop_assert!(memory.recall().is_none());
        }
    }

    #[test]
    fn the_file_of_another_trust_domain_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let all = Collected::begin(Position { epoch: 5, sequence: 6 });
        memory(&directory, "example.org")
            .keep(&all.complete(&Directory::default()).0, &catalogue());
        assert!(memory(&directory, "example.org").recall().is_some());
        assert!(memory(&directory, "example.com").recall().is_none());
    }

    #[test]
    fn services_are_kept_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let memory = memory(&directory, "example.org");
        let mut known = catalogue();
        known.apply([
            Change::Service(service("web", "10.96.0.1").into()),
            Change::Slice(slice("a", &[("", 80)], vec![endpoint("10.1.0.1")]).into()),
        ]);
        let all = Collected::begin(Position { epoch: 5, sequence: 6 });
        memory.keep(&all.complete(&Directory::default()).0, &known);
        let mut recalled = Catalogue::new(Node::default(), Arc::default());
        recalled.apply(memory.recall().unwrap().1);
        assert_eq!((recalled.node(), recalled.all()), (known.node(), known.all()));
        assert_eq!(recalled.all_ports(), known.all_ports());
        assert_eq!(recalled.all_ports().len(), 1);
    }
}
