//! From the messages of a SPIRE agent to SVIDs and trust.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spire_api::pb::spire::api::agent::delegatedidentity::v1::{
    SubscribeToX509BundlesResponse, SubscribeToX509sviDsResponse, X509svidWithKey,
};
use zeroize::Zeroizing;

use super::error::{SpireError, UnusableMessage};
use crate::identity::{Snapshot, Svid};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::trust::{Trust, TrustBundle};
use crate::x509::{self, KeyPair};

/// A snapshot from the latest SVIDs and bundles.
///
/// # Errors
/// If there is no SVID for the workload, or if anything in the messages is invalid.
pub fn snapshot(
    svids: &SubscribeToX509sviDsResponse,
    bundles: &SubscribeToX509BundlesResponse,
    expected: Option<&SpiffeId>,
) -> Result<Snapshot, SpireError> {
    let mut found = None;
    for candidate in &svids.x509_svids {
        let svid = svid(candidate)?;
        // The first is the default one (SPIFFE Workload API, 5.3).
        if expected.is_none() || svid.id.as_ref() == expected {
            found = Some(svid);
            break;
        }
    }
    let svid = found.ok_or_else(|| SpireError::NoSvid { expected: expected.cloned() })?;
    let mut domains = BTreeSet::new();
    domains.extend(svid.id.as_ref().map(|id| id.trust_domain().clone()));
    for name in &svids.federates_with {
        domains.insert(trust_domain(name)?);
    }
    let trust = trust(bundles, &domains)?;
    Ok(Snapshot { svid: Arc::new(svid), trust, next_renewal: None })
}

fn svid(sent: &X509svidWithKey) -> Result<Svid, SpireError> {
    let chain = sent.x509_svid.as_ref().map(|svid| svid.cert_chain.as_slice());
    let chain: Vec<_> =
        chain.unwrap_or_default().iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(sent.x509_svid_key.to_vec()));
    let pair = KeyPair::new(chain, &Zeroizing::new(key)).map_err(UnusableMessage::from)?;
    let svid = Svid::new(pair, None, None).map_err(UnusableMessage::from)?;
    if svid.id.is_none() {
        return Err(UnusableMessage::NoSpiffeId.into());
    }
    Ok(svid)
}

/// The bundles of the wanted domains. A domain without a bundle is not trusted.
fn trust(
    sent: &SubscribeToX509BundlesResponse,
    wanted: &BTreeSet<TrustDomain>,
) -> Result<Trust, SpireError> {
    let mut bundles: BTreeMap<TrustDomain, Arc<TrustBundle>> = BTreeMap::new();
    for (key, der) in &sent.ca_certificates {
        let domain = trust_domain(key)?;
        if !wanted.contains(&domain) {
            continue;
        }
        let authorities = x509::concatenated_certificates(der).map_err(UnusableMessage::from)?;
        let bundle =
            TrustBundle::new(domain.clone(), authorities).map_err(UnusableMessage::from)?;
        if bundles.insert(domain.clone(), Arc::new(bundle)).is_some() {
            return Err(UnusableMessage::TwoBundles(domain).into());
        }
    }
    Ok(Trust::of_bundles(bundles.into_values()))
}

/// The protocol defines `example.org`; SPIRE sends `spiffe://example.org`.
fn trust_domain(key: &str) -> Result<TrustDomain, SpireError> {
    let name = key.strip_prefix("spiffe://").unwrap_or(key);
    name.parse()
        .map_err(|error| UnusableMessage::TrustDomain { name: key.to_owned(), error }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundle_keys_have_two_spellings_and_no_others() {
        let expected: TrustDomain = "example.org".parse().unwrap();
        for key in ["example.org", "spiffe://example.org"] {
            assert_eq!(trust_domain(key).unwrap(), expected);
        }
        for key in ["", "spiffe://", "spiffe://example.org/", "https://example.org", "Example.org"]
        {
            assert!(trust_domain(key).is_err(), "{key}");
        }
    }
}
