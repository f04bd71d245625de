//! Peers and external peers in the configuration.

use super::known::{Known, UnknownDomain};
use super::raw;
use super::tls::{self, TlsSettingsError};
use crate::desired::{Destination, ExternalPeer, Origin, Peer, Place};

/// What is wrong with the entry of a peer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PeerError {
    #[error("match is empty")]
    NoMatch,
    #[error("names nobody; add spiffeIds or pins")]
    Nobody,
    /// Connections to the destination are never protected, for this reason.
    #[error("`{destination}` {why}; no peer can be there")]
    NeverProtected { destination: Destination, why: &'static str },
    #[error("`{0}` is this host itself; no peer can be there")]
    ThisHost(Place),
    #[error(transparent)]
    UnknownDomain(#[from] UnknownDomain),
    #[error(transparent)]
    Tls(#[from] TlsSettingsError),
}

/// # Errors
/// What is wrong with the entry.
pub fn peer(origin: Origin, raw: raw::Peer, known: &Known<'_>) -> Result<Peer, PeerError> {
    if raw.destinations.is_empty() {
        return Err(PeerError::NoMatch);
    }
    if raw.spiffe_ids.is_empty() && raw.pins.is_empty() {
        return Err(PeerError::Nobody);
    }
    check_reachable(&raw.destinations)?;
    known.check_ids(&raw.spiffe_ids)?;
    let pins = tls::pins(raw.pins)?;
    Ok(Peer { destinations: raw.destinations, spiffe_ids: raw.spiffe_ids, pins, origin })
}

/// # Errors
/// What is wrong with the entry.
pub fn external_peer(
    origin: Origin,
    raw: raw::ExternalPeer,
    known: &Known<'_>,
) -> Result<ExternalPeer, PeerError> {
    if raw.places.is_empty() {
        return Err(PeerError::NoMatch);
    }
    check_reachable(raw.places.iter().filter_map(Place::destination))?;
    if let Some(place) = raw.places.iter().find(|place| place.is_this_host()) {
        return Err(PeerError::ThisHost(place.clone()));
    }
    let server_name = raw.sni.as_deref().map(tls::dns_name).transpose()?;
    Ok(ExternalPeer {
        origin,
        places: raw.places.clone(),
        family: raw.family,
        server_name,
        connect_timeout: raw.connect_timeout.map(|period| period.0),
        name: raw.name.clone(),
        tls: tls::standard(raw.into(), known)?,
    })
}

/// # Errors
/// If connections to one of the destinations are never protected: its entry would have no effect.
fn check_reachable<'d>(
    destinations: impl IntoIterator<Item = &'d Destination>,
) -> Result<(), PeerError> {
    for destination in destinations {
        if let Some(why) = destination.never_protected() {
            return Err(PeerError::NeverProtected { destination: *destination, why });
        }
    }
    Ok(())
}
