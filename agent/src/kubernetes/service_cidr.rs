//! ServiceCIDRs: the ranges that the API server takes the cluster addresses of Services from (KEP-1880).

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as api;

/// Ranges of one object: one of each family (`pkg/apis/networking/validation`).
const MOST_RANGES: usize = 2;

/// The ranges of an object. What is none is left out, as the API server would have refused it.
///
/// An object that is being deleted counts until it is gone: Services have addresses of its ranges until then.
#[must_use]
pub fn ranges_of(object: &api::ServiceCIDR) -> Vec<IpNet> {
    let texts = object.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    let ranges = texts.filter_map(|text| text.parse::<IpNet>().ok());
    ranges.map(|range| range.trunc()).take(MOST_RANGES).collect()
}
