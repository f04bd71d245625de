//! From what the configuration says about peers, and the files it names, to what is expected of them.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;
use rustls_pki_types::DnsName;

use super::{Addresses, PrefixTable};
use crate::config::{
    CertificateChoice, Config, CrlConfig, Destination, ExternalPeerConfig, Family, Place,
    StandardTls, TrustChoice, WorkloadConfig,
};
use crate::control::Materials;
use crate::spiffe::SpiffeId;
use crate::tls::{ExternalPeer, Inbound, InboundTls, Shown, Target};
use crate::trust::{Expectation, Names, Pin, Proof, Revocation, Way, anchors};

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
    config: &Config,
    materials: &Materials,
    addresses: &Addresses,
) -> (PrefixTable<Target>, HashMap<String, Target>) {
    let mut table: PrefixTable<Entry> = PrefixTable::default();
    let mut by_name = HashMap::new();
    let peers: Vec<_> = config
        .external_peers
        .iter()
        .map(|peer| (peer, Arc::new(external(peer, materials))))
        .collect();
    // What an address itself is said to be comes before what a name is said to resolve to.
    for named in [true, false] {
        for (config, peer) in &peers {
            for place in &config.places {
                let (destinations, name) = destinations(place, config.family, addresses);
                if name.is_some() != named {
                    continue;
                }
                let server_name = config.server_name.clone().or(name);
                let target = Target::External { peer: peer.clone(), server_name };
                for destination in destinations {
                    *table.entry(&destination) = Entry::External(target.clone());
                }
                by_name.insert(config.name.clone(), target);
            }
        }
    }
    for peer in &config.peers {
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
    let targets = table.map(|entry| match entry {
        Entry::Nothing => Target::Agent(Expectation::default()),
        Entry::Agent { ids, pins } => Target::Agent(Expectation::of(ids, pins)),
        Entry::External(target) => target,
    });
    (targets, by_name)
}

/// Where a place is now, and its name if it has one.
fn destinations(
    place: &Place,
    family: Family,
    addresses: &Addresses,
) -> (Vec<Destination>, Option<DnsName<'static>>) {
    match place {
        Place::At(destination) => (vec![*destination], None),
        Place::Named { name, port } => {
            let known = addresses.get(name).into_iter().flatten();
            let wanted = known.filter(|address| match family {
                Family::Ipv4Only => address.is_ipv4(),
                Family::Ipv6Only => address.is_ipv6(),
                Family::Both => true,
            });
            let destination =
                |address: &_| Destination { prefix: IpNet::from(*address), port: *port };
            (wanted.map(destination).collect(), Some(name.clone()))
        }
    }
}

fn external(config: &ExternalPeerConfig, materials: &Materials) -> ExternalPeer {
    ExternalPeer {
        name: config.name.clone(),
        expectation: expectation(&config.tls, materials),
        profile: config.tls.profile.clone(),
        certificate: shown(&config.tls.certificate, materials),
        connect_timeout: config.connect_timeout,
    }
}

/// Who may call a workload.
pub fn inbound(config: &WorkloadConfig, materials: &Materials) -> Inbound {
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
            let context = materials.contexts.get(name);
            let pair = context.and_then(|(_, kept)| kept.value.as_ref());
            Shown::Named { context: name.clone(), key: pair.map(|pair| pair.key.clone()) }
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
        Some(TrustChoice::Bundle { path, crl, names }) => {
            chain(materials.certificates(path), crl.as_ref(), names, materials)
        }
        Some(TrustChoice::System { crl, names }) => {
            chain(materials.system(), crl.as_ref(), names, materials)
        }
    };
    Expectation::new(vec![Way { proof, pins }])
}

fn chain(
    authorities: &[rustls_pki_types::CertificateDer<'_>],
    crl: Option<&CrlConfig>,
    names: &Names,
    materials: &Materials,
) -> Proof {
    let revocation: Option<Arc<Revocation>> = crl.and_then(|crl| materials.revocation(crl));
    // Checked when the files were read; with none, no chain ends anywhere.
    let anchors = anchors(authorities).unwrap_or_default().into();
    Proof::Chain { anchors, revocation, names: names.clone() }
}
