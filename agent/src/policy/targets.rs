//! Who is expected at each destination: made from the desired state and the files that it names.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustls_pki_types::DnsName;

use crate::desired::{
    self, CertificateChoice, CrlFiles, Desired, Destination, Family, Place, StandardTls,
    TrustChoice,
};
use crate::materials::Materials;
use crate::origin::Origin;
use crate::peer::{
    Expectation, ExternalPeer, Inbound, InboundTls, Listed, Names, Nobody, PresentedCertificate,
    Requirement, Target,
};
use crate::steering::PrefixTable;
use crate::trust::{Anchors, Authorities, Pin};

/// Addresses that DNS names stand for now.
type Addresses<'d> = HashMap<&'d DnsName<'static>, &'d BTreeSet<IpAddr>>;

/// What the entries for one destination say.
enum Said {
    /// One of `peers`, by its index.
    Agent(usize),
    /// Several for one destination: the identities of each are expected.
    Agents(Vec<usize>),
    External(Target),
}

impl Said {
    /// Adds one of `peers` to others, or puts it in place of an external peer.
    fn and_agent(said: Option<Self>, index: usize) -> Self {
        match said {
            None | Some(Self::External(_)) => Self::Agent(index),
            Some(Self::Agent(first)) => Self::Agents(vec![first, index]),
            Some(Self::Agents(mut all)) => {
                all.push(index);
                Self::Agents(all)
            }
        }
    }
}

/// Who must answer where there is an agent. Destinations of which the same entries speak share it: there may be very many.
struct Agents<'d> {
    peers: &'d [Arc<desired::Peer>],
    materials: &'d Materials,
    known: HashMap<Vec<usize>, Arc<Target>>,
}

impl<'d> Agents<'d> {
    fn new(peers: &'d [Arc<desired::Peer>], materials: &'d Materials) -> Self {
        Self { peers, materials, known: HashMap::new() }
    }

    /// By the entries that speak of it, at least one.
    fn target(&mut self, entries: Vec<usize>) -> Arc<Target> {
        let Self { peers, materials, known } = self;
        let target = known.entry(entries).or_insert_with_key(|entries| {
            let peers: Vec<_> = entries.iter().filter_map(|index| peers.get(*index)).collect();
            let (mut ids, mut pins) = (Vec::new(), Vec::new());
            for peer in &peers {
                let named = peer.spiffe_ids.iter().cloned().map(Into::into);
                ids.extend(Listed::all(named, &peer.origin));
                pins.extend(Listed::all(materials.pins(&peer.pins), &peer.origin));
            }
            let rule = peers.first().map_or(Origin::BuiltIn, |first| first.origin.clone());
            // An entry names somebody, but the files of its pins may never have been readable.
            Arc::new(Target::Agent(Expectation::any_of(rule, ids, pins, Nobody::Unreadable)))
        });
        target.clone()
    }
}

/// The other ends of outbound flows, by destination and, external ones, by name.
pub fn build(
    desired: &Desired,
    materials: &Materials,
) -> (PrefixTable<Arc<Target>>, HashMap<String, Target>) {
    let mut table: PrefixTable<Said> = PrefixTable::default();
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
                    *table.entry(&destination) = Some(Said::External(target.clone()));
                }
            }
        }
    }
    for (index, peer) in desired.peers.iter().enumerate() {
        for destination in &peer.destinations {
            let said = table.entry(destination);
            *said = Some(Said::and_agent(said.take(), index));
        }
    }
    add_named(&mut table, named);
    let mut agents = Agents::new(&desired.peers, materials);
    let targets = table.map(|said| match said {
        Said::Agent(entry) => agents.target(vec![entry]),
        Said::Agents(entries) => agents.target(entries),
        Said::External(target) => Arc::new(target),
    });
    (targets, by_name)
}

/// Adds the addresses that names resolve to. An entry for an address comes first, even if it is for a wide prefix: who
/// answers for a name must not decide about anything else. If two external peers are at one address and port, neither is
/// believed to be there.
fn add_named(table: &mut PrefixTable<Said>, named: Vec<(Destination, Target)>) {
    let mut found: HashMap<Destination, Target> = HashMap::new();
    for (destination, target) in named {
        if table.overlaps(&destination) {
            tracing::warn!(%destination, "a DNS name resolves to an address that has an entry of its own; that entry decides");
            continue;
        }
        match found.entry(destination) {
            Entry::Vacant(entry) => {
                entry.insert(target);
            }
            Entry::Occupied(mut entry) => {
                if !is_same_peer(entry.get(), &target) {
                    tracing::warn!(%destination, "the DNS names of two external peers resolve to one address; neither is trusted there");
                    let rule = entry.get().rule().cloned().unwrap_or(Origin::BuiltIn);
                    let nobody = Expectation::nobody(rule, Nobody::Ambiguous);
                    entry.insert(Target::Agent(nobody));
                }
            }
        }
    }
    for (destination, target) in found {
        *table.entry(&destination) = Some(Said::External(target));
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
        expectation: expectation(&config.origin, &config.tls, materials),
        profile: config.tls.profile.clone(),
        certificate: presented(&config.tls.certificate, materials),
        connect_timeout: config.connect_timeout,
    }
}

/// Who may call a workload.
pub fn inbound(config: &desired::Workload, materials: &Materials) -> Inbound {
    let inbound = &config.inbound;
    let [allow, allow_pins, tls] = ["inbound.allow", "inbound.allowPins", "inbound.tls"]
        .map(|field| config.origin.field(field));
    let ids = Listed::all(inbound.allow.iter().cloned(), &allow);
    let pins = Listed::all(materials.pins(&inbound.allow_pins), &allow_pins);
    let nobody = match inbound.allow_pins[..] {
        [] => Nobody::Unnamed,
        _ => Nobody::Unreadable,
    };
    Inbound {
        callers: Expectation::any_of(allow, ids, pins, nobody),
        standard: inbound.tls.as_ref().map(|standard| InboundTls {
            profile: standard.tls.profile.clone(),
            certificate: presented(&standard.tls.certificate, materials),
            callers: expectation(&tls, &standard.tls, materials),
        }),
    }
}

fn presented(choice: &CertificateChoice, materials: &Materials) -> PresentedCertificate {
    match choice {
        CertificateChoice::Svid => PresentedCertificate::Svid,
        CertificateChoice::Nothing => PresentedCertificate::Nothing,
        CertificateChoice::Context(name) => {
            PresentedCertificate::Named { context: name.clone(), key: materials.key(name) }
        }
    }
}

/// What a peer without an agent must prove. If the files that say it could not be read, nobody is expected.
fn expectation(rule: &Origin, tls: &StandardTls, materials: &Materials) -> Expectation {
    let pins = materials.pins(&tls.pins);
    // Pins that are asked for and cannot be read must not become no pins.
    if pins.is_empty() && !tls.pins.is_empty() {
        return Expectation::nobody(rule.clone(), Nobody::Unreadable);
    }
    let requirement = match &tls.trust {
        None => Requirement::Pinned(Listed::all(pins, rule)),
        Some(TrustChoice::Spiffe(ids)) => {
            let ids = ids.iter().cloned().map(Into::into);
            Requirement::Svid { ids: Listed::all(ids, rule), pins }
        }
        Some(TrustChoice::Authorities { from, crl, names }) => {
            chain(materials.certificates(from), crl.as_ref(), names, pins, materials)
        }
    };
    Expectation::one(rule.clone(), requirement)
}

fn chain(
    certificates: &[rustls_pki_types::CertificateDer<'_>],
    crl: Option<&CrlFiles>,
    names: &Names,
    pins: Vec<Pin>,
    materials: &Materials,
) -> Requirement {
    let revocation = crl.and_then(|crl| materials.revocation(crl));
    // Checked when the files were read; with none, no chain ends anywhere.
    let anchors = Anchors::new(certificates).unwrap_or_else(|_| Anchors::none());
    let authorities = Authorities { anchors, revocation };
    Requirement::Names { authorities, names: names.clone(), pins }
}
