//! The path from an intermediate authority with name constraints that webpki cannot read to a trusted authority.
//!
//! webpki refuses every certificate below such an authority, and does not verify an authority's certificate by itself. What
//! it does for all other authorities is done here for these and for those above them: the same rules, in the same order.

use std::cell::Cell;

use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor};
use webpki::{EndEntityCert, RawPublicKeyEntity};
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::extensions::ExtendedKeyUsage;

use super::{Link, PathError, Proven, Search};
use crate::flow::Role;
use crate::trust::{PeerChain, Validity};

/// Signatures that are looked at for one chain. Eight intermediates in a row need nine.
const MOST_SIGNATURES: u32 = 64;

/// An intermediate authority as the end of webpki's way, without its constraints: they are looked at afterwards.
pub(super) fn end<'c>(authority: &'c CertificateDer<'_>) -> Result<TrustAnchor<'c>, PathError> {
    // Among others, no extension is critical that is not known. Of an anchor webpki would not ask that.
    EndEntityCert::try_from(authority)?;
    let anchor = webpki::anchor_from_trusted_cert(authority)?;
    Ok(TrustAnchor { name_constraints: None, ..anchor })
}

/// A search above the certificates that webpki has found the way through.
pub(super) struct Climb<'a> {
    search: &'a Search<'a>,
    peer: PeerChain<'a>,
    signatures: Cell<u32>,
}

impl<'a> Climb<'a> {
    pub fn new(search: &'a Search<'a>, peer: PeerChain<'a>) -> Self {
        Self { search, peer, signatures: Cell::new(MOST_SIGNATURES) }
    }

    /// Goes on with `next`, an authority that has signed the last of `below`.
    pub fn from<'c>(
        &self,
        below: &mut Vec<Link<'c>>,
        next: &'c CertificateDer<'_>,
    ) -> Result<Proven, PathError>
    where
        'a: 'c,
    {
        let link = Link::read(next)?;
        link.may_sign_crls(self.search.revocation)?;
        self.may_stand(&link, below.len() - 1)?;
        below.push(link);
        let found = self.go_on(below);
        below.pop();
        found
    }

    /// Looks for who vouches for the last of `path`.
    fn go_on<'c>(&self, path: &mut Vec<Link<'c>>) -> Result<Proven, PathError>
    where
        'a: 'c,
    {
        let mut refusal = PathError::Library(webpki::Error::UnknownIssuer);
        for authority in self.search.anchors.authorities() {
            let Some(below) = path.last() else {
                break;
            };
            let root = Link::read(&authority.certificate)?;
            if !is_named(&root, below) {
                continue;
            }
            let vouched = self
                .has_signed(&root, below)
                .and_then(|()| self.search.to_authority(path, &authority.anchor));
            match vouched {
                Ok(proven) => return Ok(proven),
                Err(error) => refusal = error,
            }
        }
        for certificate in self.peer.intermediates {
            let Some(below) = path.last() else {
                break;
            };
            let Ok(link) = Link::read(certificate) else {
                continue;
            };
            // No loops (RFC 4158, 5.2).
            if !is_named(&link, below) || path.iter().any(|one| is_same(one, &link)) {
                continue;
            }
            let may_go_on = self
                .may_stand(&link, path.len() - 1)
                .and_then(|()| link.may_sign_crls(self.search.revocation))
                .and_then(|()| self.has_signed(&link, below));
            if let Err(error) = may_go_on {
                refusal = error;
                continue;
            }
            path.push(link);
            let found = self.go_on(path);
            path.pop();
            match found {
                Ok(proven) => return Ok(proven),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// The rules of webpki for an authority between leaf and root, whoever has signed it.
    fn may_stand(&self, authority: &Link<'_>, authorities_below: usize) -> Result<(), PathError> {
        let der = CertificateDer::from(authority.der);
        EndEntityCert::try_from(&der)?;
        let (time, validity) = (self.search.now, Validity::of(&der).ok_or(PathError::Malformed)?);
        if !validity.contains(time) {
            let (not_before, not_after) = (validity.start(), validity.end());
            return Err(PathError::Library(match time < not_before {
                true => webpki::Error::CertNotValidYet { time, not_before },
                false => webpki::Error::CertExpired { time, not_after },
            }));
        }
        let certificate = &authority.certificate;
        match certificate.basic_constraints() {
            Ok(Some(_)) => authority.may_have_below(authorities_below)?,
            Ok(None) => return Err(PathError::NoCa(authority.name())),
            Err(_) => return Err(PathError::Malformed),
        }
        let serves = |usage: &ExtendedKeyUsage<'_>| match self.search.role {
            Role::Client => usage.client_auth,
            Role::Server => usage.server_auth,
        };
        match certificate.extended_key_usage() {
            Ok(None) => Ok(()),
            Ok(Some(usage)) if serves(usage.value) => Ok(()),
            Ok(Some(_)) => Err(PathError::OtherUsage(authority.name())),
            Err(_) => Err(PathError::Malformed),
        }
    }

    /// Whether `issuer` has signed the certificate, and has not revoked it.
    fn has_signed(&self, issuer: &Link<'_>, link: &Link<'_>) -> Result<(), PathError> {
        let key = SubjectPublicKeyInfoDer::from(issuer.certificate.public_key().raw);
        self.verify(&key, link.der).map_err(PathError::Library)?;
        let Some(revocation) = self.search.revocation else {
            return Ok(());
        };
        let serial = link.certificate.raw_serial();
        let issuer = link.certificate.issuer();
        let is_signed = |list: &[u8]| self.verify(&key, list);
        Ok(revocation.look_up(serial, issuer, self.search.now, is_signed)?)
    }

    /// Verifies the signature on a certificate or a CRL (RFC 5280, 4.1.1 and 5.1.1).
    fn verify(
        &self,
        key: &SubjectPublicKeyInfoDer<'_>,
        signed: &[u8],
    ) -> Result<(), webpki::Error> {
        let left = self.signatures.get().checked_sub(1);
        self.signatures.set(left.ok_or(webpki::Error::MaximumSignatureChecksExceeded)?);
        let malformed = |_| webpki::Error::BadDer;
        let (_, whole) = Any::from_der(signed).map_err(malformed)?;
        let (rest, _) = Any::from_der(whole.data).map_err(malformed)?;
        let message = &whole.data[..whole.data.len() - rest.len()];
        let (rest, algorithm) = Any::from_der(rest).map_err(malformed)?;
        let (rest, signature) = Any::from_der(rest).map_err(malformed)?;
        // Its first byte counts the bits that do not count: none.
        let (Some((0, signature)), []) = (signature.data.split_first(), rest) else {
            return Err(webpki::Error::BadDer);
        };
        let key = RawPublicKeyEntity::try_from(key)?;
        let mut refusal = webpki::Error::UnknownIssuer;
        // Of one signature algorithm there are several for different kinds of keys.
        for known in self.search.algorithms {
            if known.signature_alg_id().as_ref() != algorithm.data {
                continue;
            }
            match key.verify_signature(*known, message, signature) {
                Ok(()) => return Ok(()),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

/// Whether `issuer` bears the name that a certificate has for who signed it.
fn is_named(issuer: &Link<'_>, link: &Link<'_>) -> bool {
    issuer.certificate.subject().as_raw() == link.certificate.issuer().as_raw()
}

fn is_same(one: &Link<'_>, other: &Link<'_>) -> bool {
    let (one, other) = (&one.certificate, &other.certificate);
    one.subject().as_raw() == other.subject().as_raw()
        && one.public_key().raw == other.public_key().raw
}
