//! Whom an outbound flow calls: who is at its destination, or at an endpoint of the Service that is there.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::flow::{FlowLog, Outbound, on_heap};
use super::{FlowError, Pipeline};
use crate::flow::Reached;
use crate::peer::{Target, UidHash};
use crate::policy::{Policy, PolicyError};
use crate::services::{Backend, Choice, Client, NoEndpoint, Served, Standing};

/// How long a flow waits for the directory to tell who is at its destination.
const ASKED: Duration = Duration::from_secs(1);

/// Whom a flow calls.
pub enum Callee {
    /// Somebody who must prove who it is.
    Proved(Target),
    /// An endpoint of a Service that nobody protects, for a workload that only prefers protection; and the pod that is there.
    Plain(Option<UidHash>),
}

impl Pipeline {
    /// Client: carries the flow. Where a Service is at its destination and its endpoint cannot be reached, another endpoint
    /// gets it, once: nothing was read from the application yet.
    pub(super) async fn outbound_anywhere(
        &self,
        flow: &mut Outbound,
        log: &mut FlowLog,
    ) -> Result<(), FlowError> {
        let unreached = match self.outbound_again(flow, log).await {
            Err(error) if flow.reached.is_some() && error.is_unreached() => error,
            done => return done,
        };
        tracing::debug!(endpoint = ?flow.reached, error = %unreached, "endpoint replaced by another");
        flow.tried = flow.reached.take();
        flow.needs_new_session = false;
        flow.revision = self.published.sessions.revision();
        match self.outbound_again(flow, log).await {
            // There is no other.
            Err(FlowError::Service(_)) if flow.reached.is_none() => Err(unreached),
            done => done,
        }
    }

    /// Whom the flow calls. Where somebody of the cluster may be whom nobody knows yet, the directory is given a moment to tell:
    /// it tells of a pod or a Service a little later than that has its address.
    ///
    /// # Errors
    /// If nobody is known there who may be called.
    pub(super) async fn callee(
        &self,
        flow: &mut Outbound,
        log: &mut FlowLog,
    ) -> Result<Callee, FlowError> {
        let found = self.known_callee(flow, log);
        if !matches!(found, Err(FlowError::Policy(PolicyError::Unknown(_)))) {
            return found;
        }
        let is_known = || self.is_known(flow.destination);
        on_heap(self.published.directory.await_until(is_known, ASKED)).await;
        self.known_callee(flow, log)
    }

    fn is_known(&self, destination: SocketAddr) -> bool {
        let found = self.published.policy.load().target_at(destination);
        !matches!(found, Err(PolicyError::Unknown(_)))
            || !matches!(self.published.services.at(destination), Ok(None))
    }

    /// What is known of an address itself comes before any Service that says it has it.
    fn known_callee(&self, flow: &mut Outbound, log: &mut FlowLog) -> Result<Callee, FlowError> {
        let policy = self.published.policy.load();
        let nobody = match policy.target_at(flow.destination) {
            Err(nobody @ (PolicyError::Unknown(_) | PolicyError::NoPeer(_))) => nobody,
            found => return Ok(Callee::Proved(found?)),
        };
        let Some(served) = self.published.services.at(flow.destination)? else {
            return Err(nobody.into());
        };
        let service = served.service.to_string();
        let Choice { backend, is_plain } = self.choose(flow, &served, &policy)?;
        if flow.tried.is_some() {
            self.counters.endpoints_replaced.increment();
        }
        flow.reached = Some(backend.at);
        log.record.reached = Some(Reached { service, endpoint: backend.at });
        if is_plain {
            let meant = backend.pod.map(Into::into);
            return Ok(Callee::Plain(meant.or_else(|| policy.pod_at(backend.at))));
        }
        let target = policy.target_at(backend.at)?;
        // The directory may have changed since the choice.
        match standing_of(&target, &backend) {
            Standing::Protected => Ok(Callee::Proved(target)),
            _ => Err(PolicyError::AnotherPod(backend.at).into()),
        }
    }

    fn choose(
        &self,
        flow: &Outbound,
        served: &Served,
        policy: &Policy,
    ) -> Result<Choice, FlowError> {
        let workload = policy.workload(flow.workload).ok_or(PolicyError::UnknownWorkload)?;
        let address = match served.minds_client() {
            true => Some(client_of(flow).map_err(FlowError::DialWire)?),
            false => None,
        };
        let client = Client { address, mode: workload.outbound.mode };
        let standing = |backend: &Backend| standing(policy, backend);
        Ok(self.published.services.choose(served, &client, flow.tried, &standing)?)
    }
}

/// The address that kube-proxy would know the client by: the pod's own.
fn client_of(flow: &Outbound) -> std::io::Result<IpAddr> {
    flow.namespace.source_towards(flow.source, flow.destination.ip(), &flow.inherited)
}

/// What is known of an endpoint's protection.
fn standing(policy: &Policy, backend: &Backend) -> Standing {
    match policy.target_at(backend.at) {
        Ok(target) => standing_of(&target, backend),
        // Another pod than the Service means is there by now, or will be.
        Err(PolicyError::Plain(_))
            if backend.pod.is_some_and(|meant| !policy.may_still_be(meant.into(), backend.at)) =>
        {
            Standing::Pending
        }
        // A pod with an address of its own, of which the directory has not told yet.
        Err(PolicyError::NoPeer(_)) if backend.pod.is_some() => Standing::Unknown,
        // Nobody of the cluster is there, so nobody protects it.
        Err(PolicyError::Plain(_) | PolicyError::NoPeer(_)) => Standing::Plain,
        Err(PolicyError::Pending { .. }) => Standing::Pending,
        Err(_) => Standing::Unknown,
    }
}

/// One whose address has gone to another pod is about to be no endpoint any more.
fn standing_of(target: &Target, backend: &Backend) -> Standing {
    match (target.pod(), backend.pod) {
        (Some(there), Some(meant)) if there != meant.into() => Standing::Pending,
        _ => Standing::Protected,
    }
}

impl From<NoEndpoint> for FlowError {
    fn from(error: NoEndpoint) -> Self {
        Self::Service(Box::new(error))
    }
}
