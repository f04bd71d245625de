//! Peers and external peers in the configuration.

use super::known::Known;
use super::{raw, tls};
use crate::desired::{Destination, ExternalPeer, Origin, Peer, Place};

/// # Errors
/// The reason, with the key of the entry.
pub fn peer(origin: Origin, raw: raw::Peer, known: &Known<'_>) -> Result<Peer, String> {
    let within = |reason: String| format!("{origin}: {reason}");
    if raw.destinations.is_empty() {
        return Err(within("match is empty".to_owned()));
    }
    if raw.spiffe_ids.is_empty() && raw.pins.is_empty() {
        return Err(within("names nobody, neither by spiffeIds nor by pins".to_owned()));
    }
    check_reachable(&raw.destinations).map_err(within)?;
    known.check_ids(&raw.spiffe_ids).map_err(within)?;
    let pins = tls::pins(raw.pins).map_err(within)?;
    Ok(Peer { destinations: raw.destinations, spiffe_ids: raw.spiffe_ids, pins, origin })
}

/// # Errors
/// The reason, with the name of the peer.
pub fn external_peer(
    origin: Origin,
    raw: raw::ExternalPeer,
    known: &Known<'_>,
) -> Result<ExternalPeer, String> {
    let name = raw.name.clone();
    let within = |reason: String| format!("external peer `{name}`: {reason}");
    if name.is_empty() {
        return Err("an external peer has an empty name".to_owned());
    }
    if raw.places.is_empty() {
        return Err(within("match is empty".to_owned()));
    }
    check_reachable(raw.places.iter().filter_map(Place::destination)).map_err(within)?;
    if let Some(place) = raw.places.iter().find(|place| place.is_this_host()) {
        return Err(within(format!("`{place}` is this host itself; no peer can be there")));
    }
    let server_name = raw.sni.as_deref().map(tls::dns_name).transpose().map_err(within)?;
    Ok(ExternalPeer {
        origin,
        places: raw.places.clone(),
        family: raw.family,
        server_name,
        connect_timeout: raw.connect_timeout.map(|period| period.0),
        tls: tls::standard(raw.into(), known).map_err(within)?,
        name,
    })
}

/// # Errors
/// If connections to one of the destinations are never protected: its entry would have no effect.
fn check_reachable<'d>(
    destinations: impl IntoIterator<Item = &'d Destination>,
) -> Result<(), String> {
    for destination in destinations {
        if let Some(why) = destination.never_protected() {
            return Err(format!("`{destination}` {why}; no peer can be there"));
        }
    }
    Ok(())
}
