//! Whether a chain leads to an authority (RFC 5280, 6.1).
//!
//! webpki looks for a path and checks each step of it: signatures, times, extended key usages, CRLs. The rules that it
//! leaves out are checked here: what authorities may sign, how deep a root lets chains be, and name constraints of every
//! kind. webpki's path ends at an intermediate authority with constraints that it cannot read; [`above`] goes on from there.

mod above;

use std::cell::RefCell;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, RevocationOptions, VerifiedPath};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::constraints::{NameConstraints, Violation, names_of};
use super::reason::reason;
use super::{Anchors, PeerChain, Revocation, Validity};
use crate::flow::Role;

/// Where a chain may lead, and when.
pub(super) struct Search<'a> {
    pub role: Role,
    pub now: UnixTime,
    pub anchors: &'a Anchors,
    pub revocation: Option<&'a Revocation>,
    pub algorithms: &'a [&'static dyn SignatureVerificationAlgorithm],
}

/// A path from a leaf to an authority.
#[derive(Debug)]
pub(super) struct Proven {
    /// When all certificates of it are good.
    pub validity: Validity,
    /// How many there are between the two.
    pub used: usize,
}

/// Why no authority vouches for a chain.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PathError {
    #[error("{}", reason(.0))]
    Library(#[from] webpki::Error),
    #[error("a certificate of it cannot be parsed")]
    Malformed,
    #[error("its authority {0} may not sign certificates: it lacks the key usage keyCertSign")]
    MayNotSign(String),
    #[error("its authority {0} may not sign CRLs, and signs them: it lacks the key usage cRLSign")]
    MayNotSignCrls(String),
    #[error("its authority {0} is no CA by its basic constraints")]
    NoCa(String),
    #[error(
        "the extended key usage of its authority {0} does not allow the peer's role, client or server"
    )]
    OtherUsage(String),
    #[error("there are more authorities below {0} than that allows")]
    TooDeep(String),
    #[error("its authority {authority} does not vouch for it: {violation}")]
    Constrained { authority: String, violation: Violation },
}

/// A certificate that has been read.
pub(super) struct Link<'c> {
    der: &'c [u8],
    certificate: X509Certificate<'c>,
}

impl<'c> Link<'c> {
    pub(super) fn read(der: &'c [u8]) -> Result<Self, PathError> {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(Self { der, certificate }),
            _ => Err(PathError::Malformed),
        }
    }

    fn read_all(certificates: &'c [CertificateDer<'_>]) -> Result<Vec<Self>, PathError> {
        certificates.iter().map(|der| Self::read(der)).collect()
    }

    fn name(&self) -> String {
        let name: String = self.certificate.subject().to_string().chars().take(128).collect();
        format!("`{}`", name.escape_debug())
    }

    /// Name constraints, if it has any.
    fn constraints(&self) -> Result<Option<NameConstraints<'c>>, PathError> {
        NameConstraints::of(&self.certificate).map_err(|violation| self.constrains(violation))
    }

    fn constrains(&self, violation: Violation) -> PathError {
        PathError::Constrained { authority: self.name(), violation }
    }

    /// True if webpki would refuse every SVID below it.
    pub(super) fn is_beyond_webpki(&self) -> bool {
        // Constraints that cannot be read are refused by webpki.
        matches!(self.constraints(), Ok(Some(constraints)) if constraints.are_beyond_webpki())
    }

    /// Whether it may vouch for others (RFC 5280, 6.1.4, n). Without the extension everything is allowed.
    fn may_sign(&self) -> Result<(), PathError> {
        match self.certificate.key_usage() {
            Ok(Some(usage)) if !usage.value.key_cert_sign() => {
                Err(PathError::MayNotSign(self.name()))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(PathError::Malformed),
        }
    }

    /// Whether it may sign the CRLs that it signs (RFC 5280, 6.3.3, f). webpki does not ask that of a root.
    fn may_sign_crls(&self, revocation: Option<&Revocation>) -> Result<(), PathError> {
        let signs = |revocation: &Revocation| revocation.has_list_of(self.certificate.subject());
        match self.certificate.key_usage() {
            Ok(Some(usage)) if !usage.value.crl_sign() && revocation.is_some_and(signs) => {
                Err(PathError::MayNotSignCrls(self.name()))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(PathError::Malformed),
        }
    }

    /// Whether its basic constraints, if it has them, let it vouch for a chain with so many authorities between it and
    /// the leaf (RFC 5280, 6.1.4, k to m).
    fn may_have_below(&self, authorities: usize) -> Result<(), PathError> {
        let constraints = self.certificate.basic_constraints();
        let Some(constraints) = constraints.map_err(|_| PathError::Malformed)? else {
            return Ok(());
        };
        if !constraints.value.ca {
            return Err(PathError::NoCa(self.name()));
        }
        let is_too_deep = |most: u32| authorities > most as usize;
        if constraints.value.path_len_constraint.is_some_and(is_too_deep) {
            return Err(PathError::TooDeep(self.name()));
        }
        Ok(())
    }

    fn is_self_issued(&self) -> bool {
        self.certificate.subject().as_raw() == self.certificate.issuer().as_raw()
    }
}

impl Search<'_> {
    /// Looks for a path from a leaf to an authority.
    ///
    /// # Errors
    /// If there is none. If there is one that breaks a rule, that rule.
    pub fn prove(&self, peer: PeerChain<'_>) -> Result<Proven, PathError> {
        if self.revocation.is_some_and(Revocation::denies_everybody) {
            return Err(webpki::Error::UnknownRevocationStatus.into());
        }
        let leaf = EndEntityCert::try_from(peer.leaf)?;
        let is_beyond = |certificate: &&CertificateDer<'_>| {
            Link::read(certificate).is_ok_and(|link| link.is_beyond_webpki())
        };
        let constrained: Vec<_> = peer.intermediates.iter().filter(is_beyond).collect();
        if constrained.is_empty() {
            return self.search(&leaf, peer, self.anchors.as_slice(), peer.intermediates, &[]);
        }
        let plain: Vec<_> =
            peer.intermediates.iter().filter(|one| !is_beyond(one)).cloned().collect();
        // No path leads through authorities that webpki refuses.
        let ends: Vec<_> = constrained.iter().filter_map(|one| above::end(one).ok()).collect();
        let anchors: Vec<_> = self.anchors.as_slice().iter().chain(&ends).cloned().collect();
        self.search(&leaf, peer, &anchors, &plain, &constrained)
    }

    fn search(
        &self,
        leaf: &EndEntityCert<'_>,
        peer: PeerChain<'_>,
        anchors: &[TrustAnchor<'_>],
        intermediates: &[CertificateDer<'_>],
        constrained: &[&CertificateDer<'_>],
    ) -> Result<Proven, PathError> {
        let outcome: RefCell<Option<Result<Proven, PathError>>> = RefCell::default();
        let climb = above::Climb::new(self, peer);
        // webpki calls this with each path that it has found, and looks for another one if this refuses.
        let complete = |path: &VerifiedPath<'_>| {
            let below: Vec<_> = std::iter::once(peer.leaf.clone())
                .chain(path.intermediate_certificates().map(|certificate| certificate.der()))
                .collect();
            let is_end =
                |one: &&&CertificateDer<'_>| above::end(one).is_ok_and(|end| end == *path.anchor());
            let found = Link::read_all(&below).and_then(|mut below| {
                let mut found = self.to_authority(&below, path.anchor());
                for next in constrained.iter().filter(is_end) {
                    if found.is_ok() {
                        break;
                    }
                    found = climb.from(&mut below, next);
                }
                found
            });
            let is_found = found.is_ok();
            let mut outcome = outcome.borrow_mut();
            if is_found || outcome.is_none() {
                *outcome = Some(found);
            }
            if is_found { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
        };
        let verify = |options: Option<RevocationOptions<'_>>| {
            let usage = usage(self.role);
            leaf.verify_for_usage(
                self.algorithms,
                anchors,
                intermediates,
                self.now,
                usage,
                options,
                Some(&complete),
            )
            .map(|_| ())
        };
        let verified = match self.revocation {
            Some(revocation) => revocation.with_options(verify),
            None => verify(None),
        };
        match (verified, outcome.into_inner()) {
            (Ok(()), Some(found)) | (Err(_), Some(found @ Err(_))) => found,
            (Err(error), _) => Err(error.into()),
            (Ok(()), None) => Err(webpki::Error::UnknownIssuer.into()),
        }
    }

    /// Whether one of the authorities that webpki knows as `anchor` vouches for all of a chain, leaf first.
    fn to_authority(
        &self,
        below: &[Link<'_>],
        anchor: &TrustAnchor<'_>,
    ) -> Result<Proven, PathError> {
        let mut end = None;
        let mut refusal = PathError::Library(webpki::Error::UnknownIssuer);
        for authority in self.anchors.like(anchor) {
            match self.vouches(&authority.certificate, below) {
                Ok(()) => end = end.max(Some(authority.end)),
                Err(error) => refusal = error,
            }
        }
        let end = end.ok_or(refusal)?;
        // Of an authority webpki knows name and key, and not until when it is good (RFC 5280, 6.1.1). When it begins is not
        // asked: one that is to take over is trusted before its time.
        let authority = Validity::until(end);
        if !authority.contains(self.now) {
            let (time, not_after) = (self.now, end);
            return Err(webpki::Error::CertExpired { time, not_after }.into());
        }
        let of = |link: &Link<'_>| {
            Validity::of(&CertificateDer::from(link.der)).unwrap_or(Validity::NEVER)
        };
        let validity = below.iter().map(of).fold(authority, Validity::and);
        Ok(Proven { validity, used: below.len().saturating_sub(1) })
    }

    /// Whether an authority allows all of a chain below it, and each authority in the chain as well.
    fn vouches(&self, authority: &CertificateDer<'_>, below: &[Link<'_>]) -> Result<(), PathError> {
        // A leaf that is the authority itself is proved by its own key.
        if below.first().is_some_and(|leaf| leaf.der == authority.as_ref()) {
            return Ok(());
        }
        for (depth, link) in below.iter().enumerate().skip(1) {
            self.vouches_one(link, &below[..depth])?;
        }
        // Certificates of version 1 have no extensions (RFC 5280, 4.1.2.1).
        let root = Link::read(authority)?;
        self.vouches_one(&root, below)?;
        root.may_sign_crls(self.revocation)?;
        let between = below.iter().skip(1).filter(|link| !link.is_self_issued()).count();
        root.may_have_below(between)
    }

    fn vouches_one(&self, authority: &Link<'_>, below: &[Link<'_>]) -> Result<(), PathError> {
        authority.may_sign()?;
        let Some(constraints) = authority.constraints()? else {
            return Ok(());
        };
        below.iter().enumerate().try_for_each(|(depth, link)| {
            // In a certificate for another key of its own, an authority names itself: that is not constrained (RFC 5280,
            // 6.1.3, b).
            let is_its_own = depth > 0 && link.is_self_issued();
            let names = names_of(&link.certificate, !is_its_own);
            names.and_then(|names| constraints.check(&names)).map_err(|it| authority.constrains(it))
        })
    }
}

/// The extended key usage that the certificate of such a peer must have, if it has any.
fn usage(role: Role) -> KeyUsage {
    match role {
        Role::Client => KeyUsage::client_auth(),
        Role::Server => KeyUsage::server_auth(),
    }
}

#[cfg(test)]
mod tests;
