//! Makes roots, intermediates and SVIDs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::crypto::SecureRandom;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::state::{Authority, Issuer, Root, State};
use super::{AuthorityError, Terms};
use crate::identity::issuing::{self, CLOCK_SKEW};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::x509::CertificateFacts;

/// Makes what a CA consists of.
#[derive(Clone, Debug)]
pub struct Maker {
    pub trust_domain: TrustDomain,
    pub terms: Terms,
    pub random: &'static dyn SecureRandom,
}

impl Maker {
    /// A CA with its first root. Nobody has another one to be confused with, so it signs at once.
    ///
    /// # Errors
    /// If a certificate cannot be made.
    pub fn first(&self, now: SystemTime) -> Result<State, AuthorityError> {
        self.begun(self.root(now)?, now)
    }

    /// The same with a CA of somebody else's.
    ///
    /// # Errors
    /// If a certificate cannot be made.
    pub fn first_of(&self, issuer: &Issuer, now: SystemTime) -> Result<State, AuthorityError> {
        let (authority, above) = (issuer.authority.clone(), Some(issuer.above.clone()));
        self.begun(Root { authority, distributed: None, signed_until: now, above }, now)
    }

    fn begun(&self, mut root: Root, now: SystemTime) -> Result<State, AuthorityError> {
        root.distributed = Some(now - self.terms.distribute);
        let intermediate = self.intermediate(&mut root, now)?;
        let signed_by = Some(root.authority.facts.fingerprint);
        Ok(State { roots: vec![root], intermediate, signed_by })
    }

    /// A root that has signed nothing yet.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn root(&self, now: SystemTime) -> Result<Root, AuthorityError> {
        // Each needs a name of its own: of two with the same, verifiers may try the wrong one.
        let name = format!("Sheath root {} of {}", self.number(), self.trust_domain);
        let (from, to) = (now - CLOCK_SKEW, now + self.terms.root_ttl);
        let params = issuing::authority(&name, &self.trust_domain, 1, from, to)?;
        let key = new_key()?;
        let certificate = params.self_signed(&*key)?.der().clone();
        let authority = authority(certificate, key)?;
        Ok(Root { authority, distributed: None, signed_until: now, above: None })
    }

    /// An intermediate below a root, which remembers how long that lives.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn intermediate(
        &self,
        root: &mut Root,
        now: SystemTime,
    ) -> Result<Authority, AuthorityError> {
        let name = format!("Sheath intermediate {} of {}", self.number(), self.trust_domain);
        let to = (now + self.terms.intermediate_ttl).min(root.ends());
        let mut params = issuing::authority(&name, &self.trust_domain, 0, now - CLOCK_SKEW, to)?;
        params.use_authority_key_identifier_extension = true;
        let key = new_key()?;
        let certificate = sign(&params, &*key, &root.authority)?;
        let made = authority(certificate, key)?;
        root.signed_until = root.signed_until.max(made.facts.not_after);
        Ok(made)
    }

    /// An SVID for somebody's key. It ends no later than the intermediate.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn svid(
        &self,
        intermediate: &Authority,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let to = (now + ttl).min(intermediate.facts.not_after);
        let params = issuing::svid(id, issuing::serial(self.random), now - CLOCK_SKEW, to)?;
        sign(&params, key, intermediate)
    }

    /// A random number, short enough for people.
    fn number(&self) -> String {
        issuing::serial(self.random)[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn sign(
    params: &CertificateParams,
    key: &impl PublicKeyData,
    authority: &Authority,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let issuer = rcgen::Issuer::from_ca_cert_der(&authority.certificate, &**authority.key)?;
    Ok(params.signed_by(key, &issuer)?.der().clone())
}

fn new_key() -> Result<Zeroizing<KeyPair>, AuthorityError> {
    Ok(Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
}

fn authority(
    certificate: CertificateDer<'static>,
    key: Zeroizing<KeyPair>,
) -> Result<Authority, AuthorityError> {
    let facts = CertificateFacts::of(&certificate)?;
    Ok(Authority { certificate, facts, key: Arc::new(key) })
}
