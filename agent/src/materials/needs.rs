//! Which materials the desired state needs.

use std::collections::BTreeSet;

use crate::desired::{CertificateSource, CrlFiles, Desired, PinSource, StandardTls, TrustChoice};

/// Keys of the materials to read.
#[derive(Default)]
pub struct Needs {
    pub certificates: BTreeSet<CertificateSource>,
    pub crls: BTreeSet<CrlFiles>,
}

impl Needs {
    pub fn of(desired: &Desired) -> Self {
        let mut needs = Self::default();
        for domain in &desired.trust_domains {
            needs.certificates.extend(domain.bundle.clone().map(CertificateSource::File));
            needs.crls.extend(domain.crl.clone());
        }
        for peer in &desired.peers {
            needs.add_pins(&peer.pins);
        }
        for peer in &desired.external_peers {
            needs.add_tls(&peer.tls);
        }
        for workload in &desired.workloads {
            needs.add_pins(&workload.inbound.allow_pins);
            if let Some(inbound) = &workload.inbound.tls {
                needs.add_tls(&inbound.tls);
            }
        }
        needs
    }

    fn add_tls(&mut self, tls: &StandardTls) {
        self.add_pins(&tls.pins);
        if let Some(TrustChoice::Authorities { from, crl, .. }) = &tls.trust {
            self.certificates.insert(from.clone());
            self.crls.extend(crl.clone());
        }
    }

    fn add_pins(&mut self, pins: &[PinSource]) {
        for pin in pins {
            if let PinSource::File(path) = pin {
                self.certificates.insert(CertificateSource::File(path.clone()));
            }
        }
    }
}
