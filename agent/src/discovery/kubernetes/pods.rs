//! The pods of this node, and what was decided about each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;
use kube::core::PartialObjectMeta;
use serde::{Deserialize, Serialize};
use sheath_common::pod_uid::PodUid;
use sheath_common::workload::{InboundMode, NO_WORKLOAD, OutboundMode};

use super::identities::NoIdentities;
use super::{Kubernetes, Problems};
use crate::desired::{
    self, CgroupSelector, Desired, Existing, Inbound, NamespaceKind, Origin, Outbound, Workload,
};
use crate::follow::Problem;
use crate::kubernetes::{
    Change, Decision, Namespace, NotAPod, Pod, Protection, Rules, Table, least, spiffe_id,
};
use crate::spiffe::IdPattern;

/// What is known of the pods of this node.
#[derive(Debug)]
pub struct Pods {
    rules: Rules,
    pods: Table<PodUid, Pod>,
    namespaces: Table<Arc<str>, Namespace>,
    /// What was decided about each pod last: it stays in force where a label makes no sense any more.
    decided: BTreeMap<PodUid, Protection>,
    /// Objects that are no pods, by their name as far as they have one.
    malformed: BTreeMap<String, NotAPod>,
    /// From an earlier run of the agent, until the API server has told more.
    before: Option<Known>,
}

/// What an agent knows, for the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pods: Vec<Pod>,
    namespaces: Vec<Namespace>,
    decided: BTreeMap<PodUid, Protection>,
}

impl Pods {
    #[must_use]
    pub fn new(rules: Rules, before: Option<Known>) -> Self {
        Self {
            rules,
            pods: Table::default(),
            namespaces: Table::default(),
            decided: before.as_ref().map(|known| known.decided.clone()).unwrap_or_default(),
            malformed: BTreeMap::new(),
            before,
        }
    }

    /// Returns true if that changes anything.
    pub fn take_pod(&mut self, change: Change<api::Pod>) -> bool {
        let has_changed = match change {
            Change::Init => {
                self.pods.begin();
                false
            }
            Change::InitDone => self.pods.end(),
            Change::InitApply(object) => {
                if let Some(pod) = self.parsed(&object) {
                    self.pods.list(pod.uid, pod);
                }
                false
            }
            Change::Apply(object) => match self.parsed(&object) {
                Some(pod) => self.pods.put(pod.uid, pod),
                // Whatever it was before, it is that as long as nobody can say what it is now.
                None => true,
            },
            Change::Delete(object) => match object.metadata.uid.as_deref().map(str::parse) {
                Some(Ok(uid)) => self.pods.remove(&uid),
                _ => false,
            },
        };
        has_changed && self.decide()
    }

    /// Returns true if that changes anything.
    pub fn take_namespace(&mut self, change: Change<PartialObjectMeta<api::Namespace>>) -> bool {
        let has_changed = match change {
            Change::Init => {
                self.namespaces.begin();
                false
            }
            Change::InitDone => self.namespaces.end(),
            Change::InitApply(object) => {
                if let Some(namespace) = Namespace::of(&object) {
                    self.namespaces.list(namespace.name.clone(), namespace);
                }
                false
            }
            Change::Apply(object) => Namespace::of(&object)
                .is_some_and(|namespace| self.namespaces.put(namespace.name.clone(), namespace)),
            Change::Delete(object) => {
                let name = object.metadata.name.as_deref().map(Arc::from);
                name.is_some_and(|name| self.namespaces.remove(&name))
            }
        };
        has_changed && self.decide()
    }

    fn parsed(&mut self, object: &api::Pod) -> Option<Pod> {
        let name = || {
            let of = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{}/{}", of(&object.metadata.namespace), of(&object.metadata.name))
        };
        match Pod::of(object) {
            Ok(pod) => {
                self.malformed.remove(&pod.to_string());
                Some(pod)
            }
            Err(error) => {
                self.malformed.insert(name(), error);
                None
            }
        }
    }

    /// Decides about all pods. Returns true once there is something to tell: both lists were read.
    fn decide(&mut self) -> bool {
        let (Some(pods), Some(namespaces)) = (self.pods.objects(), self.namespaces.objects())
        else {
            return false;
        };
        let mut decided = BTreeMap::new();
        for pod in pods.values() {
            let last = self.decided.get(&pod.uid).copied();
            let namespace = namespaces.get(&pod.namespace);
            let decision = match self.rules.decide(pod, namespace) {
                Decision::Plain => Some(Protection::False),
                Decision::Protected(protection) => Some(protection),
                Decision::None => None,
                // The last good decision stays, if there ever was one; but a pod's label keeps nobody from protecting its namespace.
                Decision::Undecided(_) => last.map(|last| last.max(least(namespace))),
            };
            decided.extend(decision.map(|protection| (pod.uid, protection)));
        }
        self.decided = decided;
        self.before = None;
        true
    }

    /// All of it, for the next run of the agent.
    #[must_use]
    pub fn known(&self) -> Known {
        if let Some(before) = &self.before {
            return before.clone();
        }
        let pods = self.pods.objects().map(|pods| pods.values().cloned().collect());
        let namespaces = self.namespaces.objects().map(|all| all.values().cloned().collect());
        Known {
            pods: pods.unwrap_or_default(),
            namespaces: namespaces.unwrap_or_default(),
            decided: self.decided.clone(),
        }
    }

    fn all_pods(&self) -> Vec<&Pod> {
        match &self.before {
            Some(before) => before.pods.iter().collect(),
            None => self.pods.objects().into_iter().flat_map(HashMap::values).collect(),
        }
    }

    fn namespace_of(&self, pod: &Pod) -> Option<&Namespace> {
        match &self.before {
            Some(before) => before.namespaces.iter().find(|known| known.name == pod.namespace),
            None => self.namespaces.objects()?.get(&pod.namespace),
        }
    }

    /// What is wanted for them. Nothing is said of pods before anything is known.
    #[must_use]
    pub fn desired(&self, settings: &Kubernetes) -> Desired {
        let is_known = self.before.is_some()
            || (self.pods.objects().is_some() && self.namespaces.objects().is_some());
        if !is_known {
            return Desired::default();
        }
        let mut pods = self.all_pods();
        // The same for the same pods, in whatever order they were heard of.
        pods.sort_by(|one, other| {
            (&one.namespace, &one.name, one.uid).cmp(&(&other.namespace, &other.name, other.uid))
        });
        let (mut workloads, mut plain) = (Vec::new(), BTreeSet::new());
        for pod in pods {
            match self.decided.get(&pod.uid) {
                Some(Protection::False) => {
                    plain.insert(pod.uid);
                }
                Some(protection) => {
                    workloads.extend(workload(pod, *protection, settings).map(Arc::new))
                }
                None => {}
            }
        }
        Desired { workloads, pods: Some(desired::Pods { plain }), ..Desired::default() }
    }

    /// What is wrong with pods, by their names.
    #[must_use]
    pub fn problems(&self) -> Problems {
        let mut problems: Problems = self
            .malformed
            .iter()
            .map(|(name, error)| (name.clone(), Problem::from(error.clone())))
            .collect();
        for pod in self.all_pods() {
            let namespace = self.namespace_of(pod);
            let problem = match self.rules.decide(pod, namespace) {
                Decision::Undecided(undecided) => Some(Problem::from(undecided)),
                _ => self.rules.unsupported(pod, namespace).map(Problem::from),
            };
            problems.extend(problem.map(|problem| (pod.to_string(), problem)));
        }
        problems
    }
}

/// `None` if the pod can have no SPIFFE ID: then nothing is decided about it.
fn workload(pod: &Pod, protection: Protection, settings: &Kubernetes) -> Option<Workload> {
    let spiffe_id = spiffe_id(&settings.trust_domain, &pod.namespace, &pod.service_account).ok()?;
    let (inbound, outbound) = match protection {
        Protection::Require => (InboundMode::Strict, OutboundMode::Require),
        Protection::Prefer => (InboundMode::Permissive, OutboundMode::Prefer),
        Protection::False => return None,
    };
    // The node's ports are not the pod's.
    let (inbound, probe_ports) = match pod.host_network {
        true => (InboundMode::Disabled, BTreeSet::new()),
        false => (inbound, pod.probe_ports.clone()),
    };
    Some(Workload {
        origin: Origin::Pod { namespace: pod.namespace.clone(), name: pod.name.clone() },
        id: NO_WORKLOAD,
        name: pod.to_string(),
        cgroup: CgroupSelector::Pod(pod.uid),
        spiffe_id: Some(spiffe_id),
        source: match settings.rules.without_identity(pod) {
            Some(reason) => Arc::new(NoIdentities { reason }),
            None => settings.identities.of(pod),
        },
        inbound: Inbound {
            mode: inbound,
            namespace: NamespaceKind::Own,
            allow: vec![IdPattern::AnyOf(settings.trust_domain.clone())],
            probe_ports,
            ..Inbound::default()
        },
        outbound: Outbound { mode: outbound, bypass: settings.bypass.clone() },
        existing: Existing::Keep,
    })
}

#[cfg(test)]
mod tests;
