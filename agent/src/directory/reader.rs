//! The messages of the directory, taken for what they mean. Nothing of a message that makes no sense is believed.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use prost::Message;
use sheath_common::maps;

use super::{Collected, Delta, Entry, Names, Ports, Position, Standing};
use crate::controller_api::directory as api;
use crate::controller_api::services::Services as ServicesMessage;
use crate::peer::UidHash;
use crate::services::{self, Change, Node};
use crate::spiffe::{SpiffeId, TrustDomain};

/// Bytes of the longest name of a node.
const LONGEST_NAME: usize = 1024;
/// Ranges that a cluster may have.
const MOST_RANGES: usize = 10_000;
/// Addresses of pods that there may be: as many as the kernel's map has room for beside Services.
const MOST_ENTRIES: usize =
    (maps::MAX_DIRECTORY - maps::MAX_SERVICE_PORTS - maps::MAX_CLOSED_SERVICES) as usize;

/// A message that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the controller's directory makes no sense: {0}; it is asked for anew")]
pub struct Senseless(String);

impl Senseless {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// What a message says.
#[derive(Debug)]
enum Said {
    Page(Page),
    Delta(Delta),
    Own(Node),
}

/// A part of the directory.
#[derive(Debug)]
struct Page {
    position: Position,
    number: u32,
    is_last: bool,
    entries: Vec<(IpAddr, Entry)>,
    ranges: Option<Vec<IpNet>>,
}

/// Reads messages.
#[derive(Debug)]
pub struct Reader {
    /// Every identity is of it.
    trust_domain: TrustDomain,
    names: Names,
    /// All of the directory, as far as it has come, and how many pages that are.
    collected: Option<(Collected, u32)>,
    /// What messages have said of Services, until it is taken.
    services: Vec<Change>,
}

/// What follows from a message.
#[derive(Debug)]
pub enum Read {
    /// More pages.
    More,
    All(Collected),
    Delta(Delta),
    /// Which node this is.
    Own(Node),
}

impl Reader {
    #[must_use]
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, names: Names::default(), collected: None, services: Vec::new() }
    }

    /// Another stream begins.
    pub fn begin(&mut self) {
        self.collected = None;
        self.services.clear();
    }

    /// What was said of Services by the message, or by all pages, that were read last.
    pub fn take_services(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.services)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn read(&mut self, message: api::FollowResponse) -> Result<Read, Senseless> {
        match self.said(message)? {
            Said::Delta(_) if self.collected.is_some() => {
                Err(Senseless::new("a change before all pages"))
            }
            Said::Delta(delta) => Ok(Read::Delta(delta)),
            Said::Page(page) => self.collect(page),
            Said::Own(node) => Ok(Read::Own(node)),
        }
    }

    fn collect(&mut self, page: Page) -> Result<Read, Senseless> {
        let Page { position, number, is_last, entries, ranges } = page;
        let (mut collected, next) = match self.collected.take() {
            None => (Collected::begin(position), 0),
            Some(known) => known,
        };
        if number != next || position != collected.position() {
            return Err(Senseless::new(format!("page {number} where {next} was expected")));
        }
        if collected.len() + entries.len() > MOST_ENTRIES {
            return Err(Senseless::new(format!("more than {MOST_ENTRIES} addresses")));
        }
        entries.into_iter().for_each(|(address, entry)| collected.add(address, entry));
        if let Some(ranges) = ranges {
            collected.set_ranges(ranges);
        }
        if is_last {
            return Ok(Read::All(collected));
        }
        self.collected = Some((collected, number + 1));
        Ok(Read::More)
    }

    fn said(&mut self, message: api::FollowResponse) -> Result<Said, Senseless> {
        use api::follow_response::Message as Encoded;
        let malformed = |error: prost::DecodeError| Senseless::new(error.to_string());
        match message.message {
            Some(Encoded::Page(bytes)) => {
                let page = api::Page::decode(bytes).map_err(malformed)?;
                self.say_services(page.services)?;
                Ok(Said::Page(Page {
                    position: position(page.position)?,
                    number: page.number,
                    is_last: page.last,
                    entries: self.entries(page.entries.unwrap_or_default())?,
                    ranges: page.ranges.map(|all| ranges(&all)).transpose()?,
                }))
            }
            Some(Encoded::Delta(bytes)) => {
                let delta = api::Delta::decode(bytes).map_err(malformed)?;
                self.say_services(delta.services)?;
                let entries = self.entries(delta.entries.unwrap_or_default())?.into_iter();
                let mut changes: Vec<_> = entries.map(|(ip, entry)| (ip, Some(entry))).collect();
                for gone in &delta.gone {
                    changes.push((address(gone)?, None));
                }
                let position = position(delta.position)?;
                let ranges = delta.ranges.map(|all| ranges(&all)).transpose()?;
                Ok(Said::Delta(Delta { position, changes, ranges }))
            }
            Some(Encoded::Own(own)) => {
                if own.node.len() > LONGEST_NAME || own.zone.len() > LONGEST_NAME {
                    return Err(Senseless::new("the name of a node is too long"));
                }
                let zone = Some(own.zone).filter(|zone| !zone.is_empty());
                Ok(Said::Own(Node { name: own.node.into(), zone: zone.map(Into::into) }))
            }
            None => Err(Senseless::new("a message of an unknown kind")),
        }
    }

    fn say_services(&mut self, services: Option<ServicesMessage>) -> Result<(), Senseless> {
        let changes = services::decode(services.unwrap_or_default());
        self.services.extend(changes.map_err(|error| Senseless::new(error.to_string()))?);
        Ok(())
    }

    fn entries(&mut self, all: api::Entries) -> Result<Vec<(IpAddr, Entry)>, Senseless> {
        let identity = |text: &String| {
            let id: SpiffeId = text.parse().map_err(|error| {
                Senseless::new(format!("the identity `{}`: {error}", text.escape_debug()))
            })?;
            if *id.trust_domain() != self.trust_domain {
                let what = format!("{id} is not of the trust domain {}", self.trust_domain);
                return Err(Senseless::new(what));
            }
            Ok(self.names.identity(&id))
        };
        let identities =
            all.identities.iter().map(identity).collect::<Result<Vec<_>, Senseless>>()?;
        // It is for people alone.
        let node = |name: &String| Arc::from(&name[..name.floor_char_boundary(LONGEST_NAME)]);
        let nodes: Vec<Arc<str>> = all.nodes.iter().map(node).collect();
        let profiles = all.profiles.iter().map(ports).collect::<Result<Vec<_>, _>>()?;
        let entry = |entry: &api::Entry| {
            let standing = match entry.state() {
                api::State::Plain => Standing::Plain,
                api::State::Pending => {
                    let node = named(&nodes, entry.node)?.cloned();
                    Standing::Pending { node: node.unwrap_or_else(|| "".into()) }
                }
                api::State::Protected => Standing::Protected {
                    identity: named(&identities, entry.identity)?
                        .cloned()
                        .ok_or_else(|| Senseless::new("a protected pod without an identity"))?,
                    ports: named(&profiles, entry.profile)?.cloned().unwrap_or(Ports::Every),
                },
                api::State::Unspecified => {
                    return Err(Senseless::new(format!("a state numbered {}", entry.state)));
                }
            };
            let uid = UidHash(entry.uid_hash);
            Ok((address(&entry.address)?, Entry { uid, standing }))
        };
        all.entries.iter().map(entry).collect()
    }
}

/// The name with an index, which counts from 1; 0 is none.
fn named<T>(names: &[T], index: u32) -> Result<Option<&T>, Senseless> {
    match (index as usize).checked_sub(1) {
        None => Ok(None),
        Some(at) => names.get(at).map(Some).ok_or_else(|| Senseless::new("an index of nothing")),
    }
}

fn position(position: Option<api::Position>) -> Result<Position, Senseless> {
    let api::Position { epoch, sequence } =
        position.ok_or_else(|| Senseless::new("no position"))?;
    Ok(Position { epoch, sequence })
}

fn address(octets: &[u8]) -> Result<IpAddr, Senseless> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Ok(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(octets);
    v6.map(IpAddr::from).map_err(|_| Senseless::new("an address with neither 4 nor 16 bytes"))
}

fn ports(profile: &api::Profile) -> Result<Ports, Senseless> {
    let port = |port: &u32| {
        let port = u16::try_from(*port).ok().filter(|port| *port != 0);
        port.ok_or_else(|| Senseless::new("a port that is none"))
    };
    let mut ports = profile.ports.iter().map(port).collect::<Result<Vec<_>, _>>()?;
    ports.sort_unstable();
    ports.dedup();
    Ok(Ports::These(ports.into()))
}

fn ranges(all: &api::Ranges) -> Result<Vec<IpNet>, Senseless> {
    if all.prefixes.len() > MOST_RANGES {
        return Err(Senseless::new(format!("more than {MOST_RANGES} ranges")));
    }
    let range = |text: &String| {
        let range: Result<IpNet, _> = text.parse();
        range.map_err(|_| Senseless::new(format!("the range `{}`", text.escape_debug())))
    };
    all.prefixes.iter().map(range).collect()
}

#[cfg(test)]
mod tests;
