//! Destinations that several policies leave alone.

use ipnet::IpNet;

use crate::desired::Destination;

/// What is in one list as well as in the other.
pub fn both(one: &[Destination], other: &[Destination]) -> Vec<Destination> {
    let pairs = one.iter().flat_map(|one| other.iter().map(move |other| (one, other)));
    let common: Vec<_> = pairs.filter_map(|(one, other)| common(one, other)).collect();
    sorted(&common)
}

/// In an order of its own, each once and none that lies in another.
pub fn sorted(list: &[Destination]) -> Vec<Destination> {
    let lies_in = |inner: &Destination, outer: &Destination| {
        inner != outer && common(inner, outer).as_ref() == Some(inner)
    };
    let mut kept: Vec<Destination> = Vec::new();
    for entry in list {
        let is_new = !kept.contains(entry);
        if is_new && !list.iter().any(|outer| lies_in(entry, outer)) {
            kept.push(*entry);
        }
    }
    kept.sort_by_key(|entry| (entry.prefix, entry.port));
    kept
}

/// What is in both destinations.
fn common(one: &Destination, other: &Destination) -> Option<Destination> {
    let prefix = narrower(&one.prefix, &other.prefix)?;
    let port = match (one.port, other.port) {
        (Some(one), Some(other)) if one != other => return None,
        (one, other) => one.or(other),
    };
    Some(Destination { prefix, port })
}

fn narrower(one: &IpNet, other: &IpNet) -> Option<IpNet> {
    if other.contains(one) {
        return Some(*one);
    }
    one.contains(other).then_some(*other)
}
