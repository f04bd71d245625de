//! What the kernel is told of the directory, and in which order: at no moment does it leave alone what the agent knows to be
//! protected.

use std::net::IpAddr;

use sheath_common::net::Endpoint;
use sheath_common::verdict::{Known, PORT_ANY};

use super::change::Difference;
use super::{Entry, Ports, Standing, Touched};

/// An entry of the kernel's map.
pub type KernelEntry = (Endpoint, Known);

/// What the kernel is told of an address.
#[must_use]
pub fn kernel_entries(address: IpAddr, entry: &Entry) -> Vec<KernelEntry> {
    let at = |port: u32| Endpoint { address: address.into(), port };
    match &entry.standing {
        Standing::Plain => vec![(at(PORT_ANY), Known::PLAIN)],
        Standing::Pending { .. } | Standing::Protected { ports: Ports::Every, .. } => {
            vec![(at(PORT_ANY), Known::PROTECT)]
        }
        Standing::Protected { ports: Ports::These(ports), .. } => {
            let ports = ports.iter().map(|port| (at(u32::from(*port)), Known::PROTECT));
            ports.chain([(at(PORT_ANY), Known::PLAIN)]).collect()
        }
    }
}

/// A change of the kernel's map, in its two steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelChange {
    /// Before the directory is in force: what protects.
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
        let mut change = Self::default();
        for Difference { address, before, after } in &touched.entries {
            let entries = |entry: &Option<Entry>| {
                entry.as_ref().map(|entry| kernel_entries(*address, entry)).unwrap_or_default()
            };
            change.add(&entries(before), &entries(after));
        }
        change
    }

    /// From the entries of the kernel's map to others.
    pub fn add(&mut self, before: &[KernelEntry], after: &[KernelEntry]) {
        for entry in after.iter().filter(|entry| !before.contains(entry)) {
            match entry.1 {
                Known::PLAIN => self.release.push(*entry),
                _ => self.protect.push(*entry),
            }
        }
        for (key, known) in before {
            if after.iter().any(|(kept, _)| kept == key) {
                continue;
            }
            match *known {
                Known::PLAIN => self.unknown.push(*key),
                _ => self.forget.push(*key),
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
    use crate::directory::testing::{address, any_entry};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn written(map: &mut HashMap<Endpoint, Known>, change: &KernelChange, step: u8) {
        let (put, gone) = match step {
            1 => (&change.protect, &change.unknown),
            _ => (&change.release, &change.forget),
        };
        map.extend(put.iter().copied());
        map.retain(|key, _| !gone.contains(key));
    }

    proptest! {
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
            let change = KernelChange::of(&Touched { entries: vec![difference], ranges: false });
            let mut map = all(&before);
            written(&mut map, &change, 1);
            let at = |map: &HashMap<Endpoint, Known>| {
                let any = Endpoint { address: ip.into(), port: PORT_ANY };
                map.get(&Endpoint { port, ..any }).or_else(|| map.get(&any)).copied()
            };
            if at(&map) == Some(Known::PLAIN) {
                prop_assert_eq!(at(&all(&before)), Some(Known::PLAIN));
                prop_assert_eq!(at(&all(&after)), Some(Known::PLAIN));
            }
            written(&mut map, &change, 2);
            prop_assert_eq!(map, all(&after));
        }
    }
}
