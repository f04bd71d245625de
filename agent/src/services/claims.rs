//! Whose an address is. Anybody who may write a Service may write any address into it (CVE-2020-8554), so what the API server has
//! given counts first, then what load balancers have, then what Services say of themselves.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::frontend::{Frontend, Reach, Served};
use crate::kubernetes::ServiceName;

/// What a Service is at an address that it says it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub reach: Reach,
    pub ports: Ports,
}

/// The ports of a Service at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    These(BTreeMap<u16, Arc<Served>>),
    /// There is no room for it.
    NoRoom,
}

/// The first who has an address has all of its ports: another's ports there are closed, so that nobody is led to him in the
/// owner's place. Between equals it is decided port by port, and a port of two is nobody's.
pub fn decided(claims: &BTreeMap<ServiceName, Claim>) -> BTreeMap<u16, Frontend> {
    let mut all = BTreeMap::new();
    let Some(best) = claims.values().map(|claim| rank(claim.reach)).min() else {
        return all;
    };
    let is_own = |claim: &Claim| rank(claim.reach) == best;
    for (name, claim) in claims.iter().filter(|(_, claim)| is_own(claim)) {
        for (port, frontend) in claim.frontends(name) {
            match all.entry(port) {
                Entry::Vacant(place) => {
                    place.insert(frontend);
                }
                Entry::Occupied(mut known) => {
                    if !matches!(known.get(), Frontend::Claimed(..)) {
                        let first = known.get().service().clone();
                        known.insert(Frontend::Claimed(first, name.clone()));
                    }
                }
            }
        }
    }
    let owner = claims.iter().find(|(_, claim)| is_own(claim)).map(|(name, _)| name);
    for (name, claim) in claims.iter().filter(|(_, claim)| !is_own(claim)) {
        for (port, _) in claim.frontends(name) {
            let closed = || Frontend::Claimed(owner.unwrap_or(name).clone(), name.clone());
            all.entry(port).or_insert_with(closed);
        }
    }
    all
}

/// The lowest comes first.
fn rank(reach: Reach) -> u8 {
    match reach {
        Reach::Cluster | Reach::Node => 0,
        Reach::Balancer => 1,
        Reach::External => 2,
        Reach::Foreign => 3,
    }
}

impl Claim {
    fn frontends(&self, name: &ServiceName) -> Vec<(u16, Frontend)> {
        match &self.ports {
            Ports::NoRoom => vec![(0, Frontend::NoRoom(name.clone()))],
            Ports::These(ports) => {
                let frontend = |served: &Arc<Served>| match self.reach {
                    Reach::Foreign => Frontend::Foreign(name.clone()),
                    _ => Frontend::Served(served.clone()),
                };
                ports.iter().map(|(port, served)| (*port, frontend(served))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::testing::{name, served};

    fn claim(of: &str, reach: Reach, ports: &[u16]) -> (ServiceName, Claim) {
        let one = |port: &u16| {
            let served = Served { service: name(of), reach, ..served(&["10.1.0.1:80"]) };
            (*port, Arc::new(served))
        };
        (name(of), Claim { reach, ports: Ports::These(ports.iter().map(one).collect()) })
    }

    fn shown(claims: &[(ServiceName, Claim)]) -> Vec<(u16, String)> {
        let claims = claims.iter().cloned().collect();
        let text = |frontend: &Frontend| match frontend {
            Frontend::Served(served) => served.service.name.to_string(),
            Frontend::Claimed(one, other) => format!("{} or {}", one.name, other.name),
            Frontend::Foreign(of) => format!("not {}", of.name),
            Frontend::NoRoom(of) => format!("no {}", of.name),
        };
        decided(&claims).iter().map(|(port, frontend)| (*port, text(frontend))).collect()
    }

    fn expect(found: Vec<(u16, String)>, expected: &[(u16, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(port, text)| (*port, (*text).to_owned())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn who_has_the_address_has_every_port_of_it() {
        let web = claim("web", Reach::Cluster, &[80]);
        let balanced = claim("lb", Reach::Balancer, &[80, 443]);
        let thief = claim("thief", Reach::External, &[80, 81, 443]);
        expect(
            shown(&[web.clone(), thief.clone()]),
            &[(80, "web"), (81, "web or thief"), (443, "web or thief")],
        );
        expect(
            shown(&[balanced.clone(), thief.clone()]),
            &[(80, "lb"), (81, "lb or thief"), (443, "lb")],
        );
        expect(
            shown(&[web, balanced, thief.clone()]),
            &[(80, "web"), (81, "web or thief"), (443, "web or lb")],
        );
        expect(shown(&[thief]), &[(80, "thief"), (81, "thief"), (443, "thief")]);
    }

    #[test]
    fn between_equals_a_port_of_two_is_nobodys() {
        let [one, other, third] = [("a", &[80, 81][..]), ("b", &[80, 82]), ("c", &[80])]
            .map(|(of, ports)| claim(of, Reach::External, ports));
        expect(shown(&[one, other, third]), &[(80, "a or b"), (81, "a"), (82, "b")]);
    }

    #[test]
    fn what_is_the_clusters_own_is_closed() {
        let foreign = claim("thief", Reach::Foreign, &[443]);
        expect(shown(std::slice::from_ref(&foreign)), &[(443, "not thief")]);
        let web = claim("web", Reach::External, &[80]);
        expect(shown(&[foreign, web]), &[(80, "web"), (443, "web or thief")]);
    }

    #[test]
    fn without_room_every_port_is_closed() {
        let closed = (name("big"), Claim { reach: Reach::Cluster, ports: Ports::NoRoom });
        expect(shown(&[closed]), &[(0, "no big")]);
    }
}
