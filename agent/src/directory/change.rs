//! From one state of the directory to the next: by what has changed, or by all of it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rpds::HashTrieMapSync;

use super::{Directory, Entry, Position, Standing};
use crate::services::ServicePorts;

/// What has changed since the position before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    pub position: Position,
    /// By address, each once; `None` where nobody is any more.
    pub changes: Vec<(IpAddr, Option<Entry>)>,
    /// The ranges of the cluster, if they have changed.
    pub ranges: Option<Vec<IpNet>>,
}

/// It does not follow on what is known. Then everything has to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the directory's change {next:?} does not follow on {known:?}; all of it is asked for")]
pub struct NotApplicable {
    known: Option<Position>,
    next: Position,
}

/// What differs between two states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub entries: Vec<Difference>,
    pub ranges: bool,
    pub services: Vec<ServiceDifference>,
}

/// Of the Services at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDifference {
    pub address: IpAddr,
    /// Their ports, as far as they count.
    pub before: ServicePorts,
    pub after: ServicePorts,
}

/// Of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub address: IpAddr,
    pub before: Option<Entry>,
    pub after: Option<Entry>,
}

impl Difference {
    /// True if it is known that another pod is there now.
    #[must_use]
    pub fn is_another(&self) -> bool {
        let uid = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.uid);
        self.after.is_some() && self.before.is_some() && uid(&self.before) != uid(&self.after)
    }

    /// True if somebody is there now who was plain, or nobody, and is not plain.
    #[must_use]
    pub fn gains_protection(&self) -> bool {
        let is_plain =
            |entry: &Option<Entry>| entry.as_ref().is_none_or(|e| e.standing == Standing::Plain);
        is_plain(&self.before) && !is_plain(&self.after)
    }
}

impl Directory {
    /// The state after a change.
    ///
    /// # Errors
    /// If the change is not the one that follows.
    pub fn after(&self, delta: Delta) -> Result<(Self, Touched), NotApplicable> {
        self.with_services(delta, [])
    }

    /// The state after a change that concerns the ports of Services at these addresses as well.
    ///
    /// # Errors
    /// If the change is not the one that follows.
    pub fn with_services(
        &self,
        delta: Delta,
        services: impl IntoIterator<Item = (IpAddr, ServicePorts)>,
    ) -> Result<(Self, Touched), NotApplicable> {
        let Delta { position, changes, ranges } = delta;
        if !self.precedes(position) {
            return Err(NotApplicable { known: self.position, next: position });
        }
        let mut next = self.clone();
        next.position = Some(position);
        let mut touched = Touched::default();
        for (address, after) in changes {
            let address = address.to_canonical();
            let before = next.entries.get(&address).cloned();
            if before == after {
                continue;
            }
            match &after {
                Some(entry) => next.entries.insert_mut(address, entry.clone()),
                None => {
                    next.entries.remove_mut(&address);
                }
            }
            touched.entries.push(Difference { address, before, after });
        }
        if let Some(ranges) = ranges.filter(|ranges| ranges[..] != *self.ranges) {
            next.ranges = ranges.into();
            touched.ranges = true;
        }
        let services: Vec<_> = services.into_iter().collect();
        let addresses: Vec<_> = services.iter().map(|(address, _)| *address).collect();
        next.set_services(services);
        next.compare_services(self, addresses, &mut touched);
        Ok((next, touched))
    }

    /// True if the change is the one that follows.
    #[must_use]
    pub fn is_followed_by(&self, delta: &Delta) -> bool {
        self.precedes(delta.position)
    }

    fn precedes(&self, position: Position) -> bool {
        self.position.is_some_and(|known| {
            known.epoch == position.epoch
                && known.sequence.checked_add(1) == Some(position.sequence)
        })
    }

    fn set_services(&mut self, services: impl IntoIterator<Item = (IpAddr, ServicePorts)>) {
        for (address, ports) in services {
            let known = self.services.get(&address);
            if known.map_or(ports.is_empty(), |known| *known == ports) {
                continue;
            }
            match ports.is_empty() {
                true => self.services.remove_mut(&address),
                false => {
                    self.services.insert_mut(address, ports);
                    true
                }
            };
        }
    }

    /// Notes at which of these addresses ports of Services count that did not, or the other way round. Where an entry has
    /// changed, they may as well.
    fn compare_services(
        &self,
        before: &Self,
        addresses: impl IntoIterator<Item = IpAddr>,
        touched: &mut Touched,
    ) {
        let mut concerned: BTreeSet<_> = addresses.into_iter().collect();
        concerned.extend(touched.entries.iter().map(|difference| difference.address));
        for address in concerned {
            let [was, is] = [before, self].map(|directory| directory.service_ports(address));
            if was != is {
                let (before, after) = (was.into(), is.into());
                touched.services.push(ServiceDifference { address, before, after });
            }
        }
    }
}

/// All of the directory, as far as it has come.
#[derive(Debug)]
pub struct Collected {
    position: Position,
    entries: HashTrieMapSync<IpAddr, Entry>,
    ranges: Arc<[IpNet]>,
}

impl Collected {
    #[must_use]
    pub fn begin(position: Position) -> Self {
        Self { position, entries: HashTrieMapSync::new_sync(), ranges: Arc::default() }
    }

    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many addresses there are so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.size()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn add(&mut self, address: IpAddr, entry: Entry) {
        self.entries.insert_mut(address.to_canonical(), entry);
    }

    pub fn set_ranges(&mut self, ranges: Vec<IpNet>) {
        self.ranges = ranges.into();
    }

    /// It is complete, and takes the place of what was known.
    #[must_use]
    pub fn complete(self, before: &Directory) -> (Directory, Touched) {
        self.complete_with(before, before.services.iter().map(|(ip, ports)| (*ip, ports.clone())))
    }

    /// The same, with the ports of all Services.
    #[must_use]
    pub fn complete_with(
        self,
        before: &Directory,
        services: impl IntoIterator<Item = (IpAddr, ServicePorts)>,
    ) -> (Directory, Touched) {
        let Self { position, entries, ranges } = self;
        let mut touched = Touched { ranges: ranges != before.ranges, ..Touched::default() };
        for (address, after) in entries.iter() {
            let known = before.entries.get(address);
            if known != Some(after) {
                let (before, after) = (known.cloned(), Some(after.clone()));
                touched.entries.push(Difference { address: *address, before, after });
            }
        }
        for (address, known) in before.entries.iter() {
            if !entries.contains_key(address) {
                let before = Some(known.clone());
                touched.entries.push(Difference { address: *address, before, after: None });
            }
        }
        let services: HashTrieMapSync<_, _> =
            services.into_iter().filter(|(_, ports)| !ports.is_empty()).collect();
        let next = Directory { position: Some(position), entries, ranges, services };
        let addresses = next.services.keys().chain(before.services.keys()).copied();
        next.compare_services(before, addresses, &mut touched);
        (next, touched)
    }
}

#[cfg(test)]
mod tests;
