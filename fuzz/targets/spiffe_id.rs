//! SPIFFE IDs and trust domains, as certificates and configurations spell them.
//!
//! What is accepted keeps the standard's rules and is kept as it was written: an ID has one spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sheath::spiffe::{SpiffeId, TrustDomain};

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse() {
        check_id(&id, text);
    }
    if let Ok(domain) = text.parse() {
        check_domain(&domain, text);
    }
});

fn check_id(id: &SpiffeId, text: &str) {
    assert_eq!(id.as_str(), text);
    assert_eq!(id.to_string(), text);
    assert!(text.len() <= 2048);

    let domain = id.trust_domain();
    assert_eq!(domain.to_string().parse().as_ref(), Ok(domain));
    // A domain's own ID is no workload's.
    assert!(domain.id().parse::<SpiffeId>().is_err());

    let path = text.strip_prefix(&domain.id()).and_then(|rest| rest.strip_prefix('/'));
    for segment in path.expect("an ID is its domain, a slash and a path").split('/') {
        assert!(!["", ".", ".."].contains(&segment));
        assert!(segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)));
    }
}

fn check_domain(domain: &TrustDomain, text: &str) {
    assert_eq!(domain.to_string(), text);
    assert!((1..=255).contains(&text.len()));
    assert!(text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_')));

    let id: SpiffeId = format!("spiffe://{text}/x").parse().expect("a workload of this domain");
    assert_eq!(id.trust_domain(), domain);
}
