//! From what is wanted of peers, and the files that it takes, to what is expected of them.

use std::collections::hash_map::Entry as HashEntry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustls_pki_types::DnsName;

use super::PrefixTable;
use crate::desired::{
    self, CertificateChoice, CrlFiles, Desired, Destination, Family, Place, StandardTls,
    TrustChoice,
};
use crate::materials::Materials;
use crate::spiffe::SpiffeId;
use crate::tls::{ExternalPeer, Inbound, InboundTls, Shown, Target};
use crate::trust::{Anchors, Expectation, Names, Pin, Proof, Revocation, Way};

/// Addresses that DNS names stand for now.
type Addresses<'d> = HashMap<&'d DnsName<'static>, &'d BTreeSet<IpAddr>>;

/// What the entries for one destination say.
#[derive(Default)]
enum Entry {
    #[default]
    Nothing,
    /// Two entries for one destination: either's identities will do.
    Agent {
        ids: Vec<SpiffeId>,
        pins: Vec<Pin>,
    },
    External(Target),
}

/// The other ends of outbound flows, by destination and, external ones, by name.
pub fn build(
    desired: &Desired,
    materials: &Materials,
) -> (PrefixTable<Target>, HashMap<String, Target>) {
    let mut table: PrefixTable<Entry> = PrefixTable::default();
    let mut by_name = HashMap::new();
    let mut named = Vec::new();
    let addresses: Addresses<'_> =
        desired.endpoints.iter().map(|known| (&known.name, &known.addresses)).collect();
    for peer in &desired.external_peers {
        let external = Arc::new(external(peer, materials));
        for place in &peer.places {
            let (destinations, name) = destinations(place, peer.family, &addresses);
            let is_named = name.is_some();
            let server_name = peer.server_name.clone().or(name);
            let target = Target::External { peer: external.clone(), server_name };
            by_name.entry(peer.name.clone()).or_insert_with(|| target.clone());
            if is_named {
                named.extend(destinations.into_iter().map(|to| (to, target.clone())));
            } else {
                for destination in destinations {
                    *table.entry(&destination) = Entry::External(target.clone());
                }
            }
        }
    }
    for peer in &desired.peers {
        let more = materials.pins(&peer.pins);
        for destination in &peer.destinations {
            let entry = table.entry(destination);
            if !matches!(entry, Entry::Agent { .. }) {
                *entry = Entry::Agent { ids: Vec::new(), pins: Vec::new() };
            }
            if let Entry::Agent { ids, pins } = entry {
                ids.extend(peer.spiffe_ids.iter().cloned());
                pins.extend(&more);
            }
        }
    }
    add_named(&mut table, named);
    let targets = table.map(|entry| match entry {
        Entry::Nothing => Target::Agent(Expectation::default()),
        Entry::Agent { ids, pins } => Target::Agent(Expectation::of(ids, pins)),
        Entry::External(target) => target,
    });
    (targets, by_name)
}

/// Adds what names resolve to. What the configuration says of addresses comes first, however widely it says
/// it: whoever answers for a name must not decide about anything else. And where two external peers turn out to
/// be at one address and port, neither is believed to be there.
fn add_named(table: &mut PrefixTable<Entry>, named: Vec<(Destination, Target)>) {
    let mut found: HashMap<Destination, Option<Target>> = HashMap::new();
    for (destination, target) in named {
        if table.overlaps(&destination) {
            tracing::warn!(%destination, "a name resolves to an address that the configuration itself speaks of, which counts");
            continue;
        }
        match found.entry(destination) {
            HashEntry::Vacant(entry) => {
                entry.insert(Some(target));
            }
            HashEntry::Occupied(mut entry) => {
                if entry.get().as_ref().is_none_or(|other| !is_same_peer(other, &target)) {
                    tracing::warn!(%destination, "the names of two external peers resolve to one address; neither is believed there");
                    entry.insert(None);
                }
            }
        }
    }
    for (destination, target) in found {
        let nobody = || Target::Agent(Expectation::default());
        *table.entry(&destination) = Entry::External(target.unwrap_or_else(nobody));
    }
}

fn is_same_peer(one: &Target, other: &Target) -> bool {
    match (one, other) {
        (Target::External { peer: one, .. }, Target::External { peer: other, .. }) => {
            one.name == other.name
        }
        _ => false,
    }
}

/// Where a place is now, and its name if it has one.
fn destinations(
    place: &Place,
    family: Family,
    addresses: &Addresses<'_>,
) -> (Vec<Destination>, Option<DnsName<'static>>) {
    match place {
        Place::At(destination) => (vec![*destination], None),
        Place::Named { name, port } => {
            let known = addresses.get(name).copied().into_iter().flatten();
            let wanted = known.filter(|address| family.has(address));
            let destination =
                |address: &_| Destination { prefix: IpNet::from(*address), port: *port };
            (wanted.map(destination).collect(), Some(name.clone()))
        }
    }
}

fn external(config: &desired::ExternalPeer, materials: &Materials) -> ExternalPeer {
    ExternalPeer {
        name: config.name.clone(),
        expectation: expectation(&config.tls, materials),
        profile: config.tls.profile.clone(),
        certificate: shown(&config.tls.certificate, materials),
        connect_timeout: config.connect_timeout,
    }
}

/// Who may call a workload.
pub fn inbound(config: &desired::Workload, materials: &Materials) -> Inbound {
    let inbound = &config.inbound;
    Inbound {
        callers: Expectation::of(inbound.allow.clone(), materials.pins(&inbound.allow_pins)),
        standard: inbound.tls.as_ref().map(|standard| InboundTls {
            profile: standard.tls.profile.clone(),
            certificate: shown(&standard.tls.certificate, materials),
            callers: expectation(&standard.tls, materials),
        }),
    }
}

fn shown(choice: &CertificateChoice, materials: &Materials) -> Shown {
    match choice {
        CertificateChoice::Svid => Shown::Svid,
        CertificateChoice::Nothing => Shown::Nothing,
        CertificateChoice::Context(name) => {
            Shown::Named { context: name.clone(), key: materials.key(name) }
        }
    }
}

/// What a peer without an agent must prove. Where the files that say it could not be read, nobody can.
fn expectation(tls: &StandardTls, materials: &Materials) -> Expectation {
    let pins = materials.pins(&tls.pins);
    // Pins that are asked for and cannot be read must not become no pins.
    if pins.is_empty() && !tls.pins.is_empty() {
        return Expectation::default();
    }
    let proof = match &tls.trust {
        None => Proof::Pinned,
        Some(TrustChoice::Spiffe(ids)) => Proof::Spiffe(ids.clone()),
        Some(TrustChoice::Authorities { from, crl, names }) => {
            chain(materials.certificates(from), crl.as_ref(), names, materials)
        }
    };
    Expectation::new(vec![Way { proof, pins }])
}

fn chain(
    authorities: &[rustls_pki_types::CertificateDer<'_>],
    crl: Option<&CrlFiles>,
    names: &Names,
    materials: &Materials,
) -> Proof {
    let revocation: Option<Arc<Revocation>> = crl.and_then(|crl| materials.revocation(crl));
    // Checked when the files were read; with none, no chain ends anywhere.
    let anchors = Anchors::new(authorities).unwrap_or_else(|_| Anchors::none());
    Proof::Chain { anchors, revocation, names: names.clone() }
}
