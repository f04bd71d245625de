//! The addresses of one name, including those of the last hour.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::ADDRESSES_OF_A_NAME;

/// How long an address stays protected after the name stopped resolving to it. Applications use addresses for longer than
/// they should, and must not get plaintext.
const LINGER: Duration = Duration::from_secs(3600);

/// What an answer has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Nothing,
    /// Only the reason why the name does not resolve.
    Problem,
    Addresses,
}

/// Addresses with the time when the name last resolved to them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SeenAddresses(HashMap<IpAddr, SystemTime>);

impl SeenAddresses {
    /// Adds addresses, and forgets those that have not been seen for long. Returns true if the set has changed.
    pub fn take(&mut self, addresses: BTreeSet<IpAddr>, now: SystemTime) -> bool {
        let before = self.addresses();
        for address in addresses.into_iter().filter(is_somebodys).take(ADDRESSES_OF_A_NAME) {
            self.0.insert(address.to_canonical(), now);
        }
        let age = |last: SystemTime| now.duration_since(last).unwrap_or_default();
        self.0.retain(|_, last| age(*last) < LINGER);
        while self.0.len() > ADDRESSES_OF_A_NAME {
            let oldest = self.0.iter().min_by_key(|(address, last)| (**last, **address));
            let Some(oldest) = oldest.map(|(address, _)| *address) else {
                break;
            };
            self.0.remove(&oldest);
        }
        before != self.addresses()
    }

    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.0.keys().copied().collect()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// False for loopback, multicast and the like: no answer may redirect traffic to the host itself.
fn is_somebodys(address: &IpAddr) -> bool {
    let address = address.to_canonical();
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(range: std::ops::Range<u32>) -> BTreeSet<IpAddr> {
        range.map(|n| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n))).collect()
    }

    #[test]
    fn an_address_lingers_and_then_goes() {
        let mut seen = SeenAddresses::default();
        let start = SystemTime::now();
        assert!(seen.take(addresses(0..2), start));
        assert!(!seen.take(addresses(0..1), start + LINGER / 2));
        assert!(seen.take(addresses(0..1), start + LINGER));
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn no_answer_makes_a_name_stand_for_more_than_a_few_addresses() {
        let mut seen = SeenAddresses::default();
        let start = SystemTime::now();
        for round in 0..5 {
            let many = addresses(round * 1000..round * 1000 + 1000);
            seen.take(many, start + Duration::from_secs(round.into()));
        }
        assert_eq!(seen.len(), ADDRESSES_OF_A_NAME);
        // The latest answer is what is left.
        assert!(addresses(4000..4010).iter().all(|address| seen.addresses().contains(address)));
    }

    #[test]
    fn no_answer_turns_to_the_host_itself() {
        let unwanted = [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "169.254.169.254",
            "255.255.255.255",
            "::1",
            "::",
            "ff02::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ];
        let unwanted = unwanted.iter().map(|address| address.parse().unwrap()).collect();
        assert!(!SeenAddresses::default().take(unwanted, SystemTime::now()));
    }
}
