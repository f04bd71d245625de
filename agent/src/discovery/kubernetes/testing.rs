//! For tests: settings.

use std::path::PathBuf;
use std::time::Duration;

use super::{Kubernetes, PodIdentities};
use crate::desired::BypassOrigin;
use crate::identity::CaSettings;
use crate::kubernetes::Access;
pub use crate::kubernetes::testing::*;

pub fn settings(memory: PathBuf) -> Kubernetes {
    let trust_domain: crate::spiffe::TrustDomain = "example.org".parse().unwrap();
    Kubernetes {
        access: Access::Pod,
        node: "node-a".to_owned(),
        identities: PodIdentities::Ca(CaSettings {
            dir: "/ca".into(),
            trust_domain: trust_domain.clone(),
            svid_ttl: Duration::from_secs(3600),
        }),
        trust_domain,
        rules: rules(),
        bypass: BypassOrigin::ApiServer.of(["10.96.0.1:443".to_owned().try_into().unwrap()]),
        memory,
    }
}
