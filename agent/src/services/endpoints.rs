//! The endpoints of one port of a Service, put together from its slices.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sheath_common::pod_uid::PodUid;

use crate::kubernetes::{Endpoint, EndpointSlice};

/// Where a connection to a Service may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub at: SocketAddr,
    /// Who should be there; `None` if it is no pod, or nobody says which.
    pub pod: Option<PodUid>,
}

/// The endpoints of the port with this name, of one family, each once.
///
/// A pod may be in two slices for a moment, and two pods may have one address where that of an ending one is given to another. So
/// one that is not about to end comes before others (`addEndpoints` in `pkg/proxy/endpointslicecache.go`).
pub fn of_port<'s>(
    slices: impl IntoIterator<Item = &'s EndpointSlice>,
    name: &str,
    is_v4: bool,
) -> BTreeMap<SocketAddr, &'s Endpoint> {
    let mut found: BTreeMap<SocketAddr, &Endpoint> = BTreeMap::new();
    for slice in slices {
        for port in slice.ports.iter().filter(|port| &*port.name == name) {
            for (address, endpoint) in &slice.endpoints {
                if address.is_ipv4() != is_v4 {
                    break;
                }
                let at = SocketAddr::new(*address, port.port);
                if !endpoint.conditions.is_terminating {
                    found.insert(at, endpoint);
                } else {
                    found.entry(at).or_insert(endpoint);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::testing::{ending, endpoint, slice};

    fn at(found: &BTreeMap<SocketAddr, &Endpoint>) -> Vec<String> {
        found.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn endpoints_of_several_slices_are_one_set() {
        let slices = [
            slice("a", &[("http", 8080)], vec![endpoint("10.1.0.1"), endpoint("10.1.0.2")]),
            slice("b", &[("http", 8080)], vec![endpoint("10.1.0.2"), endpoint("10.1.0.3")]),
        ];
        let found = of_port(&slices, "http", true);
        assert_eq!(at(&found), ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"]);
    }

    #[test]
    fn a_named_target_port_may_be_another_number_in_each_slice() {
        let slices = [
            slice("a", &[("http", 8080)], vec![endpoint("10.1.0.1")]),
            slice("b", &[("http", 9090), ("admin", 1)], vec![endpoint("10.1.0.2")]),
        ];
        assert_eq!(at(&of_port(&slices, "http", true)), ["10.1.0.1:8080", "10.1.0.2:9090"]);
        assert_eq!(at(&of_port(&slices, "admin", true)), ["10.1.0.2:1"]);
        assert_eq!(at(&of_port(&slices, "", true)), [""; 0]);
    }

    #[test]
    fn families_do_not_mix() {
        let slices = [
            slice("a", &[("", 80)], vec![endpoint("10.1.0.1")]),
            slice("b", &[("", 80)], vec![endpoint("fd00::1")]),
        ];
        assert_eq!(at(&of_port(&slices, "", true)), ["10.1.0.1:80"]);
        assert_eq!(at(&of_port(&slices, "", false)), ["[fd00::1]:80"]);
    }

    #[test]
    fn where_two_have_one_address_the_one_that_stays_counts() {
        let (old, new) = (ending("10.1.0.1"), endpoint("10.1.0.1"));
        for order in [[&old, &new], [&new, &old]] {
            let [a, b] = order.map(|endpoint| endpoint.clone());
            let slices = [slice("a", &[("", 80)], vec![a]), slice("b", &[("", 80)], vec![b])];
            let found = of_port(&slices, "", true);
            assert!(found.values().all(|endpoint| !endpoint.conditions.is_terminating));
            assert_eq!(found.len(), 1);
        }
    }
}
