//! The kernel's rules about destinations. Those about single addresses are in a hash map, where a lookup among half a million
//! takes as long as one among few; those about prefixes are in a trie.

use std::collections::HashMap;
use std::io;

use sheath_common::verdict::{
    ADDRESS_BITS, Action, DESTINATION_PREFIX_BITS, Destination, DestinationKey, SCOPE_CLUSTER,
};

use super::pins::Pins;
use crate::steering::{KernelRule, kernel_port, mapped_length};
use crate::sys::bpf::{Prefix, Table};

/// Rules as the kernel has them. The value says how long the key's prefix is.
type Entries = HashMap<(DestinationKey, u32), Destination>;

#[derive(Debug)]
pub struct DestinationMaps {
    addresses: Table<DestinationKey, Destination>,
    prefixes: Table<Prefix<DestinationKey>, Destination>,
}

impl DestinationMaps {
    /// # Errors
    /// `InvalidData` if a map has another shape than this agent's.
    pub fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            addresses: Table::open(&pins.map("ADDRESSES"))?,
            prefixes: Table::open(&pins.map("PREFIXES"))?,
        })
    }

    /// Adds rules. Old ones stay in force until [`Self::prune`], so that nothing that stays protected is ever unprotected:
    /// protections come first, as a bypass may be wider than one of them.
    ///
    /// # Errors
    /// `StorageFull` if there is no room for the old ones and the new ones.
    pub fn add(&self, rules: &[KernelRule]) -> io::Result<()> {
        let present = self.entries()?;
        let mut missing = wanted(rules);
        missing.retain(|key, rule| present.get(key) != Some(rule));
        for action in [Action::Protect, Action::Bypass] {
            let (addresses, prefixes) = split(&missing, action);
            self.addresses.insert_all(&addresses)?;
            self.prefixes.insert_all(&prefixes)?;
        }
        Ok(())
    }

    /// Removes all other rules. Call it only when the workloads' modes are in force too. Bypasses go first: the rule that
    /// covers one may be a protection that goes as well.
    ///
    /// # Errors
    /// If the maps cannot be read or written.
    pub fn prune(&self, rules: &[KernelRule]) -> io::Result<()> {
        let wanted = wanted(rules);
        let mut stale = self.entries()?;
        stale.retain(|key, _| !wanted.contains_key(key));
        for action in [Action::Bypass, Action::Protect] {
            let (addresses, prefixes) = split(&stale, action);
            self.addresses.remove_all(&keys(&addresses))?;
            self.prefixes.remove_all(&keys(&prefixes))?;
        }
        Ok(())
    }

    /// Those of the directory are not among them.
    fn entries(&self) -> io::Result<Entries> {
        let of_address = |(key, rule)| ((key, ADDRESS_BITS), rule);
        let of_prefix = |(prefix, rule): (Prefix<DestinationKey>, Destination)| {
            (({ prefix.data }, { prefix.bits } - DESTINATION_PREFIX_BITS), rule)
        };
        let addresses = self.addresses.entries()?.into_iter().map(of_address);
        let prefixes = self.prefixes.entries()?.into_iter();
        let prefixes = prefixes.filter(|(prefix, _)| { prefix.data }.scope != SCOPE_CLUSTER);
        Ok(addresses.chain(prefixes.map(of_prefix)).collect())
    }
}

fn wanted(rules: &[KernelRule]) -> Entries {
    let entry = |rule: &KernelRule| {
        let length = u32::from(mapped_length(&rule.destination.prefix));
        let key = DestinationKey {
            scope: rule.scope,
            port: kernel_port(&rule.destination),
            address: rule.destination.prefix.addr().into(),
        };
        ((key, length), Destination::new(rule.action, length))
    };
    rules.iter().map(entry).collect()
}

type AddressEntry = (DestinationKey, Destination);
type PrefixEntry = (Prefix<DestinationKey>, Destination);

/// Those with an action, by the map that they belong to.
fn split(entries: &Entries, action: Action) -> (Vec<AddressEntry>, Vec<PrefixEntry>) {
    let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
    for ((key, length), rule) in entries.iter().filter(|(_, rule)| rule.action() == action) {
        if *length == ADDRESS_BITS {
            addresses.push((*key, *rule));
        } else {
            prefixes.push((Prefix { bits: DESTINATION_PREFIX_BITS + length, data: *key }, *rule));
        }
    }
    (addresses, prefixes)
}

fn keys<K: Copy, V>(entries: &[(K, V)]) -> Vec<K> {
    entries.iter().map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheath_common::verdict::SCOPE_ALL;

    fn rule(scope: u32, destination: &str, action: Action) -> KernelRule {
        let destination = crate::desired::Destination::parse(destination).unwrap();
        KernelRule { scope, destination, action }
    }

    #[test]
    fn single_addresses_go_to_one_map_and_prefixes_to_the_other() {
        let rules = wanted(&[
            rule(SCOPE_ALL, "10.0.0.1:80", Action::Protect),
            rule(SCOPE_ALL, "fd00::1", Action::Protect),
            rule(SCOPE_ALL, "10.0.0.0/31", Action::Protect),
            rule(7, "10.0.0.2", Action::Bypass),
            rule(7, "0.0.0.0/0:53", Action::Bypass),
        ]);
        let (addresses, prefixes) = split(&rules, Action::Protect);
        let mut ports: Vec<_> = addresses.iter().map(|(key, _)| key.port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [0, 80]);
        assert!(addresses.iter().all(|(_, rule)| rule.prefix_len == ADDRESS_BITS));
        let bits: Vec<_> = prefixes.iter().map(|(prefix, _)| prefix.bits).collect();
        assert_eq!(bits, [64 + 96 + 31]);
        let (addresses, prefixes) = split(&rules, Action::Bypass);
        assert_eq!(
            addresses.iter().map(|(key, _)| (key.scope, key.port)).collect::<Vec<_>>(),
            [(7, 0)]
        );
        assert_eq!(prefixes.iter().map(|(prefix, _)| prefix.bits).collect::<Vec<_>>(), [64 + 96]);
    }
}
