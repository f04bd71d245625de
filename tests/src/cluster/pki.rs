//! Who is who in a cluster: one authority, and a certificate for each program, named as Kubernetes' built-in roles have
//! it ("PKI certificates and requirements" in its documentation).

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::names::{API_SERVICE, NodeName, control_plane};
use super::state::State;

/// The file of the API server's certificate.
pub const API_SERVER: &str = "apiserver";

/// The authority of a cluster. Its key is in the cluster's directory: the controller manager signs with it.
pub struct Pki<'s> {
    state: &'s State,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, in files.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// One that was issued before, to `pki/<file>.crt`.
    pub fn of(state: &State, file: &str) -> Self {
        let at = |kind: &str| state.at(format!("pki/{file}.{kind}"));
        Self { certificate: at("crt"), key: at("key") }
    }
}

/// A certificate's subject: a user, and a group of users.
#[derive(Clone, Copy)]
pub struct Subject<'s> {
    pub user: &'s str,
    pub group: Option<&'s str>,
}

impl<'s> Pki<'s> {
    /// Makes the authority, and the key that the API server signs service accounts' tokens with.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn create(state: &'s State) -> Result<Self> {
        let key = KeyPair::generate().context("a key for the authority")?;
        let mut params = params(Subject { user: "sheath-cluster", group: None });
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let certificate = params.self_signed(&key).context("the authority's certificate")?;
        state.write("pki/ca.crt", &certificate.pem())?;
        state.write("pki/ca.key", &key.serialize_pem())?;
        let tokens = KeyPair::generate().context("a key for tokens")?;
        state.write("pki/tokens.key", &tokens.serialize_pem())?;
        state.write("pki/tokens.pub", &tokens.public_key_pem())?;
        Ok(Self { state, issuer: Issuer::new(params, key) })
    }

    /// Issues a client's certificate, to `pki/<file>.crt`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn client(&self, file: &str, subject: Subject<'_>) -> Result<Pair> {
        self.issue(file, params(subject), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Issues the API server's certificate, for all that it is called.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn api_server(&self) -> Result<Pair> {
        let mut params = params(Subject { user: "kube-apiserver", group: None });
        for name in ["", ".default", ".default.svc", ".default.svc.cluster.local"] {
            params.subject_alt_names.push(dns(&format!("kubernetes{name}"))?);
        }
        for machine in [control_plane(), API_SERVICE] {
            let ips: [IpAddr; 2] = [machine.v4.into(), machine.v6.into()];
            params.subject_alt_names.extend(ips.map(SanType::IpAddress));
        }
        self.issue(API_SERVER, params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues the certificate that a kubelet shows to the API server's calls.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn kubelet_server(&self, node: NodeName) -> Result<Pair> {
        let user = format!("system:node:{}", node.as_str());
        let mut params = params(Subject { user: &user, group: Some("system:nodes") });
        params.subject_alt_names.push(dns(node.as_str())?);
        let ips: [IpAddr; 2] = [node.addresses().v4.into(), node.addresses().v6.into()];
        params.subject_alt_names.extend(ips.map(SanType::IpAddress));
        let file = format!("{}-server", node.as_str());
        self.issue(&file, params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn issue(
        &self,
        file: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Pair> {
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().context("a key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("a certificate")?;
        self.state.write(&format!("pki/{file}.crt"), &certificate.pem())?;
        self.state.write(&format!("pki/{file}.key"), &key.serialize_pem())?;
        Ok(Pair::of(self.state, file))
    }
}

fn params(subject: Subject<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, subject.user);
    if let Some(group) = subject.group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::hours(1);
    // A cluster is not meant to grow old.
    params.not_after = now + Duration::days(30);
    params
}

fn dns(name: &str) -> Result<SanType> {
    Ok(SanType::DnsName(name.try_into().with_context(|| format!("{name} as a DNS name"))?))
}
