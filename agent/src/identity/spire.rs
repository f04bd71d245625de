//! Identities from a SPIRE agent, by its Delegated Identity API: on behalf of a workload, known by selectors or
//! by one of its processes, and with the bundles of the trust domains it federates with.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::SecureRandom;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::transport::{Endpoint, connector};
use spire_api::pb::spire::api::agent::delegatedidentity::v1::delegated_identity_client::DelegatedIdentityClient;
use spire_api::pb::spire::api::agent::delegatedidentity::v1::{
    SubscribeToX509BundlesRequest, SubscribeToX509BundlesResponse, SubscribeToX509sviDsRequest,
    SubscribeToX509sviDsResponse, X509svidWithKey,
};
use spire_api::pb::spire::api::types;
use tonic::transport::Channel;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::{
    Processes, Shared, Snapshot, Source, SourceCheck, SourceSettings, Svid, Update, Updates,
};
use crate::follow::{Backoff, Following, Problem, Unfollowed};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::sys::pidfd::PidFd;
use crate::trust::{Trust, TrustBundle};
use crate::x509::{self, KeyPair};

/// How long the SPIRE agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A selector as SPIRE knows them: `unix:uid:1000` has the type `unix` and the value `uid:1000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpireSelector {
    pub kind: String,
    pub value: String,
}

/// A text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector `{0}` must look like `unix:uid:1000`")]
pub struct NotASelector(String);

impl SpireSelector {
    /// # Errors
    /// If there is no type or no value in it.
    pub fn parse(text: &str) -> Result<Self, NotASelector> {
        match text.split_once(':') {
            Some((kind, value)) if !kind.is_empty() && !value.is_empty() => {
                Ok(Self { kind: kind.to_owned(), value: value.to_owned() })
            }
            _ => Err(NotASelector(text.to_owned())),
        }
    }
}

/// A SPIRE agent on this node, and by what it is asked for a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpireSettings {
    /// Its admin socket.
    pub socket: PathBuf,
    /// Empty: by process.
    pub selectors: Vec<SpireSelector>,
}

impl SourceSettings for SpireSettings {
    fn kind(&self) -> &'static str {
        "spire"
    }

    fn open(&self, shared: &mut Shared) -> Result<Arc<dyn Source>, Problem> {
        let random = shared.provider().secure_random;
        let SpireSettings { socket, selectors } = self.clone();
        Ok(Arc::new(SpireSource { socket, selectors, random }))
    }

    fn check(&self, _: &str, _: Option<&SpiffeId>) -> Option<SourceCheck> {
        let is_there = UnixStream::connect(&self.socket).is_ok();
        (!is_there).then(|| SourceCheck::Doubtful {
            found: format!("no SPIRE agent answers at {}", self.socket.display()),
            advice:
                "its admin socket is set by admin_socket_path in the SPIRE agent's configuration"
                    .to_owned(),
        })
    }
}

/// Follows a workload by its SPIRE agent.
#[derive(Debug)]
struct SpireSource {
    socket: PathBuf,
    selectors: Vec<SpireSelector>,
    random: &'static dyn SecureRandom,
}

/// Why a session with the SPIRE agent ended, or has nothing to give.
#[derive(Debug, thiserror::Error)]
enum SpireError {
    #[error("cannot reach the SPIRE agent at {}: {reason}", socket.display())]
    Unreachable { socket: PathBuf, reason: String },
    #[error("the SPIRE agent lets this agent ask for nothing, or not for this workload: {}", .0.message())]
    Denied(Status),
    #[error("{}", failed(.0))]
    Failed(Status),
    #[error("there is no process to ask SPIRE for")]
    NoProcess,
    #[error("the SPIRE agent has ended the subscription")]
    Ended,
    #[error("the SPIRE agent does not answer within {}", humantime::format_duration(PATIENCE))]
    Silent,
    /// The process by which the workload was known has ended, or never was one of its own.
    #[error("the process by which the workload was attested has ended")]
    ProcessEnded,
    #[error("the SPIRE agent has no SVID for the workload{}", expected.as_ref().map(|id| format!(" that is of {id}")).unwrap_or_default())]
    NoSvid { expected: Option<SpiffeId> },
    #[error("what the SPIRE agent sent cannot be used: {0}")]
    Unusable(String),
    #[error(transparent)]
    Unfollowed(#[from] Unfollowed),
}

/// By its status. Its message is SPIRE's own only where SPIRE has answered.
fn failed(status: &Status) -> String {
    let what = match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Aborted => {
            return "the SPIRE agent has closed the connection, or does not answer".to_owned();
        }
        Code::Unimplemented => {
            return "what answers at the socket has no Delegated Identity API; it must be the SPIRE agent's \
                    admin_socket_path"
                .to_owned();
        }
        Code::Unknown | Code::Internal if status.message().is_empty() => {
            return "the SPIRE agent's answer cannot be read".to_owned();
        }
        Code::DeadlineExceeded => "does not answer in time",
        Code::ResourceExhausted => "has too much to do",
        Code::Unauthenticated => {
            "does not know this agent; see authorized_delegates in its configuration"
        }
        Code::InvalidArgument => "does not take the question",
        Code::NotFound => "knows nothing of the workload",
        _ => "fails",
    };
    format!("the SPIRE agent {what}: {}", status.message())
}

impl From<Status> for SpireError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::PermissionDenied => Self::Denied(status),
            _ => Self::Failed(status),
        }
    }
}

impl SpireError {
    fn unusable(error: impl ToString) -> Self {
        Self::Unusable(error.to_string())
    }

    /// What it means for the workload: its identity is gone only if the SPIRE agent says so.
    fn into_update(self) -> Update {
        match self {
            Self::Denied(_) | Self::NoSvid { .. } => Update::Withdrawn(self.into()),
            _ => Update::Failed(self.into()),
        }
    }
}

/// What is being asked for, and what the asking depends on.
struct Subject {
    request: SubscribeToX509sviDsRequest,
    process: Option<PidFd>,
}

impl Subject {
    /// False if the number that was asked for may have come to mean another process.
    fn is_itself(&self) -> bool {
        self.process.as_ref().is_none_or(PidFd::is_alive)
    }

    /// Waits for the end of what the request depends on.
    async fn ended(&self) {
        match &self.process {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
    }
}

impl SpireSource {
    /// By selectors at once; by process as soon as there is one.
    async fn subject(&self, updates: &Updates) -> Result<Subject, Unfollowed> {
        if !self.selectors.is_empty() {
            let selector = |selector: &SpireSelector| types::Selector {
                r#type: selector.kind.clone(),
                value: selector.value.clone(),
            };
            let selectors = self.selectors.iter().map(selector).collect();
            return Ok(Subject {
                request: SubscribeToX509sviDsRequest { selectors, pid: 0 },
                process: None,
            });
        }
        let mut processes: Processes = updates.workload().processes.clone();
        let mut said = false;
        loop {
            let candidates = processes.borrow_and_update().clone();
            if let Some((pid, process)) = attestable(&candidates, updates) {
                return Ok(Subject {
                    request: SubscribeToX509sviDsRequest { selectors: Vec::new(), pid },
                    process: Some(process),
                });
            }
            if !std::mem::replace(&mut said, true) {
                updates.send(Update::Waiting(SpireError::NoProcess.into())).await?;
            }
            if processes.changed().await.is_err() {
                // Capture has ended, and the agent with it.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn connect(&self) -> Result<DelegatedIdentityClient<Channel>, SpireError> {
        let unreachable = |reason| SpireError::Unreachable { socket: self.socket.clone(), reason };
        let endpoint =
            Endpoint::parse(&format!("unix:{}", self.socket.display())).map_err(|_| {
                unreachable("identity.spire.socket must be an absolute path".to_owned())
            })?;
        let channel = connector::connect(&endpoint).await.map_err(|error| {
            tracing::debug!(%error, "SPIRE");
            unreachable(why_unreachable(&self.socket))
        })?;
        Ok(DelegatedIdentityClient::new(channel))
    }

    /// One subscription, for as long as it lasts.
    async fn subscribe(&self, updates: &Updates, backoff: &mut Backoff) -> Result<(), SpireError> {
        let subject = self.subject(updates).await?;
        let open = async {
            let mut client = self.connect().await?;
            let asked = SubscribeToX509BundlesRequest {};
            let bundles = client.subscribe_to_x509_bundles(asked).await?.into_inner();
            let svids = client.subscribe_to_x509svi_ds(subject.request.clone()).await?;
            Ok::<_, SpireError>((bundles, svids.into_inner()))
        };
        let (mut bundles, mut svids) = tokio::select! {
            opened = tokio::time::timeout(PATIENCE, open) => {
                opened.map_err(|_| SpireError::Silent)??
            }
            () = subject.ended() => return Err(SpireError::ProcessEnded),
        };
        let mut latest_svids = None;
        let mut latest_bundles = None;
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            let is_waiting = latest_svids.is_none() || latest_bundles.is_none();
            tokio::select! {
                message = svids.message() => latest_svids = Some(message?.ok_or(SpireError::Ended)?),
                message = bundles.message() => latest_bundles = Some(message?.ok_or(SpireError::Ended)?),
                () = subject.ended() => return Err(SpireError::ProcessEnded),
                () = &mut patience, if is_waiting => return Err(SpireError::Silent),
            }
            // Attested while the process lived, so it was the one that was meant.
            if !subject.is_itself() {
                return Err(SpireError::ProcessEnded);
            }
            let (Some(svids), Some(bundles)) = (&latest_svids, &latest_bundles) else {
                continue;
            };
            backoff.reset();
            let expected = updates.workload().spiffe_id.as_ref();
            let update = match self.snapshot(svids, bundles, expected) {
                Ok(snapshot) => Update::Snapshot(snapshot),
                Err(error) => error.into_update(),
            };
            updates.send(update).await?;
        }
    }

    /// Everything, or nothing.
    fn snapshot(
        &self,
        svids: &SubscribeToX509sviDsResponse,
        bundles: &SubscribeToX509BundlesResponse,
        expected: Option<&SpiffeId>,
    ) -> Result<Snapshot, SpireError> {
        let mut found = None;
        for candidate in &svids.x509_svids {
            let svid = self.svid(candidate)?;
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

    fn svid(&self, sent: &X509svidWithKey) -> Result<Svid, SpireError> {
        let chain = sent.x509_svid.as_ref().map(|svid| svid.cert_chain.as_slice());
        let chain: Vec<_> = chain
            .unwrap_or_default()
            .iter()
            .map(|der| CertificateDer::from(der.to_vec()))
            .collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(sent.x509_svid_key.to_vec()));
        let pair = KeyPair::new(chain, &Zeroizing::new(key)).map_err(SpireError::unusable)?;
        let svid = Svid::new(pair, None, None).map_err(SpireError::unusable)?;
        if svid.id.is_none() {
            return Err(SpireError::unusable("a certificate without a SPIFFE ID"));
        }
        Ok(svid)
    }
}

fn why_unreachable(socket: &Path) -> String {
    use std::os::unix::fs::FileTypeExt;
    match socket.metadata().map(|metadata| metadata.file_type().is_socket()) {
        Ok(true) => "nobody listens there",
        Ok(false) => "it is no socket",
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "there is no such socket",
        Err(_) => "it cannot be looked at",
    }
    .to_owned()
}

/// A process that is the workload's for certain: its descriptor was open before its cgroup was looked at.
fn attestable(candidates: &BTreeSet<u32>, updates: &Updates) -> Option<(i32, PidFd)> {
    candidates.iter().find_map(|pid| {
        let process = PidFd::open(*pid).ok()?;
        let is_member = (updates.workload().membership.0)(*pid) && process.is_alive();
        is_member.then_some((i32::try_from(*pid).ok()?, process))
    })
}

/// The bundles of some domains. Of one that is missing nothing is believed.
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
        let authorities = x509::concatenated_certificates(der).map_err(SpireError::unusable)?;
        let bundle = TrustBundle::new(domain.clone(), authorities).map_err(SpireError::unusable)?;
        if bundles.insert(domain.clone(), Arc::new(bundle)).is_some() {
            return Err(SpireError::Unusable(format!("two bundles of {domain}")));
        }
    }
    Ok(Trust::of_bundles(bundles.into_values()))
}

/// The protocol says `example.org`, and SPIRE says `spiffe://example.org`.
fn trust_domain(key: &str) -> Result<TrustDomain, SpireError> {
    let name = key.strip_prefix("spiffe://").unwrap_or(key);
    name.parse().map_err(|error| SpireError::Unusable(format!("the trust domain `{key}` {error}")))
}

impl Source for SpireSource {
    fn follow(self: Arc<Self>, updates: Updates) -> Following {
        Box::pin(async move {
            let mut backoff = Backoff::new(self.random);
            loop {
                match self.subscribe(&updates, &mut backoff).await {
                    Ok(()) => {}
                    Err(SpireError::Unfollowed(unfollowed)) => return Err(unfollowed),
                    // There will be another process, or none and so no need.
                    Err(SpireError::ProcessEnded) => {}
                    Err(error) => updates.send(error.into_update()).await?,
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        })
    }
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
