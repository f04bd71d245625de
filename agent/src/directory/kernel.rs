//! What the kernel is told of the directory, and in which order: at no moment does it leave alone what the agent knows to be
//! protected.

use std::collections::HashMap;
use std::net::IpAddr;

use sheath_common::net::Endpoint;
use sheath_common::verdict::{Known, PORT_ANY};

use super::change::{Difference, ServiceDifference};
use super::{Directory, Entry, Ports, Standing, Touched};

/// An entry of the kernel's map.
pub type KernelEntry = (Endpoint, Known);

/// What the kernel is told of an address.
#[must_use]
pub fn kernel_entries(address: IpAddr, entry: &Entry) -> Vec<KernelEntry> {
    let at = |port: u32| Endpoint { address: address.into(), port };
    match &entry.standing {
        Standing::Plain => vec![(at(PORT_ANY), Known::PLAIN)],
        // It is refused at once, without the agent.
        Standing::Pending { .. } => vec![(at(PORT_ANY), Known::REFUSE)],
        Standing::Protected { ports: Ports::Every, .. } => vec![(at(PORT_ANY), Known::PROTECT)],
        Standing::Protected { ports: Ports::These(ports), .. } => {
            let ports = ports.iter().map(|port| (at(u32::from(*port)), Known::PROTECT));
            ports.chain([(at(PORT_ANY), Known::PLAIN)]).collect()
        }
    }
}

/// What the kernel is told of Services at an address.
pub fn service_entries(
    address: IpAddr,
    ports: &[(u16, Known)],
) -> impl Iterator<Item = KernelEntry> {
    // Port 0 stands for all others, here as there.
    const { assert!(PORT_ANY == 0) };
    let at = move |port: u16| Endpoint { address: address.into(), port: u32::from(port) };
    ports.iter().map(move |(port, known)| (at(*port), *known))
}

impl Directory {
    /// What the kernel is told of an address.
    #[must_use]
    pub fn kernel_entries(&self, address: IpAddr) -> Vec<KernelEntry> {
        match self.entry(address) {
            Some(entry) => kernel_entries(address, entry),
            None => service_entries(address, self.service_ports(address)).collect(),
        }
    }
}

/// A change of the kernel's map, in its two steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelChange {
    /// Before the directory is in force: what protects or refuses.
    pub protect: Vec<KernelEntry>,
    /// Before it as well: nobody is known to be plain there any more. Whoever comes is asked for.
    pub unknown: Vec<Endpoint>,
    /// When it is in force: what is left alone.
    pub release: Vec<KernelEntry>,
    /// When it is in force: nothing is protected there any more.
    pub forget: Vec<Endpoint>,
}

impl KernelChange {
    #[must_use]
    pub fn of(touched: &Touched) -> Self {
        // Of an address all at once: a Service's port may be a pod's.
        let mut places: HashMap<IpAddr, usize> = HashMap::new();
        let mut all: Vec<[Vec<KernelEntry>; 2]> = Vec::new();
        for Difference { address, before, after } in &touched.entries {
            let entries = |entry: &Option<Entry>| {
                entry.as_ref().map(|entry| kernel_entries(*address, entry)).unwrap_or_default()
            };
            places.insert(*address, all.len());
            all.push([entries(before), entries(after)]);
        }
        for ServiceDifference { address, before, after } in &touched.services {
            let [was, is] = [before, after].map(|ports| service_entries(*address, ports));
            match places.get(address).and_then(|place| all.get_mut(*place)) {
                Some([before, after]) => {
                    before.extend(was);
                    after.extend(is);
                }
                None => all.push([was.collect(), is.collect()]),
            }
        }
        let mut change = Self::default();
        all.iter().for_each(|[before, after]| change.add(before, after));
        change
    }

    /// From the entries of the kernel's map to others.
    pub fn add(&mut self, before: &[KernelEntry], after: &[KernelEntry]) {
        let (was, is): (HashMap<_, _>, HashMap<_, _>) =
            (before.iter().copied().collect(), after.iter().copied().collect());
        for entry in after.iter().filter(|(key, known)| was.get(key) != Some(known)) {
            match entry.1.leaves_alone() {
                true => self.release.push(*entry),
                false => self.protect.push(*entry),
            }
        }
        for (key, known) in before {
            if is.contains_key(key) {
                continue;
            }
            match known.leaves_alone() {
                true => self.unknown.push(*key),
                false => self.forget.push(*key),
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing::{address, any_entry, any_service_ports};
    use crate::directory::{Collected, Delta, Position};
    use proptest::prelude::*;

    fn written(map: &mut HashMap<Endpoint, Known>, change: &KernelChange, step: u8) {
        let (put, gone) = match step {
            1 => (&change.protect, &change.unknown),
            _ => (&change.release, &change.forget),
        };
        map.extend(put.iter().copied());
        map.retain(|key, _| !gone.contains(key));
    }

    /// What the kernel finds for a port.
    fn at(ip: IpAddr, map: &HashMap<Endpoint, Known>, port: u32) -> Option<Known> {
        let any = Endpoint { address: ip.into(), port: PORT_ANY };
        map.get(&Endpoint { port, ..any }).or_else(|| map.get(&any)).copied()
    }

    proptest! {
        /// The same with Services: what the kernel knows of an address is what follows from the directory.
        #[test]
        fn ports_of_services_come_and_go_beside_those_of_pods(
            steps in prop::collection::vec((prop::option::of(any_entry()), any_service_ports()), 1..8),
        ) {
            let ip = address(1);
            let mut position = Position { epoch: 1, sequence: 0 };
            let (mut directory, _) = Collected::begin(position).complete(&Directory::default());
            let mut map = HashMap::new();
            for (entry, ports) in steps {
                position.sequence += 1;
                let delta = Delta { position, changes: vec![(ip, entry)], ranges: None };
                let (next, touched) = directory.with_services(delta, [(ip, ports)]).unwrap();
                let change = KernelChange::of(&touched);
                let before = map.clone();
                written(&mut map, &change, 1);
                let after: HashMap<_, _> = next.kernel_entries(ip).into_iter().collect();
                for port in 0..6 {
                    if at(ip, &map, port).is_some_and(|known| known.leaves_alone()) {
                        let alone = |map| at(ip, map, port).is_some_and(|known| known.leaves_alone());
                        prop_assert!(alone(&before) && alone(&after), "port {}", port);
                    }
                }
                written(&mut map, &change, 2);
                prop_assert_eq!(&map, &next.kernel_entries(ip).into_iter().collect());
                directory = next;
            }
            // All of it at once leads to the same.
            let (all, touched) = Collected::begin(position).complete_with(&directory, []);
            let change = KernelChange::of(&touched);
            written(&mut map, &change, 1);
            written(&mut map, &change, 2);
            prop_assert_eq!(map.len(), 0);
            prop_assert_eq!(all.addresses().count(), 0);
        }

        /// Between the steps nothing is known to be plain that is not plain both before and after.
        #[test]
        fn both_steps_lead_there_and_the_first_protects(
            before in prop::option::of(any_entry()), after in prop::option::of(any_entry()), port in 0..5_u32,
        ) {
            let ip = address(1);
            let all = |entry: &Option<Entry>| -> HashMap<_, _> {
                entry.iter().flat_map(|entry| kernel_entries(ip, entry)).collect()
            };
            let difference = Difference { address: ip, before: before.clone(), after: after.clone() };
            let change = KernelChange::of(&Touched { entries: vec![difference], ..Touched::default() });
            let mut map = all(&before);
            written(&mut map, &change, 1);
            let at = |map: &HashMap<Endpoint, Known>| at(ip, map, port);
            if at(&map) == Some(Known::PLAIN) {
                prop_assert_eq!(at(&all(&before)), Some(Known::PLAIN));
                prop_assert_eq!(at(&all(&after)), Some(Known::PLAIN));
            }
            written(&mut map, &change, 2);
            prop_assert_eq!(map, all(&after));
        }
    }
}
