//! Which endpoints a client of this node is sent to, by kube-proxy's rules (`CategorizeEndpoints` in `pkg/proxy/topology.go`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Node;
use super::endpoints::Backend;
use crate::kubernetes::Endpoint;

/// Endpoints by preference, each tier sorted, none empty. kube-proxy knows the first alone. The next is for where none of those
/// before it may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiers(Vec<Arc<[Backend]>>);

/// How clients are kept near, where endpoints say whom they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Near {
    Node,
    Zone,
}

type Endpoints<'e> = BTreeMap<SocketAddr, &'e Endpoint>;

impl Tiers {
    /// Endpoints anywhere in the cluster: those that are near, if all that are ready say whom they are for; all that are ready;
    /// those that are about to end and still answer.
    #[must_use]
    pub fn anywhere(endpoints: &Endpoints<'_>, node: &Node) -> Self {
        let near = near(endpoints, node);
        Self::new([
            near.map(|near| chosen(endpoints, |e| is_ready(e) && near.has(e, node))),
            Some(chosen(endpoints, is_ready)),
            Some(chosen(endpoints, is_last)),
        ])
    }

    /// Endpoints of this node alone, whatever they say: those that are ready; those that are about to end and still answer.
    #[must_use]
    pub fn on_node(endpoints: &Endpoints<'_>, node: &Node) -> Self {
        let is_here = |e: &Endpoint| e.node.as_deref() == Some(&*node.name);
        Self::new([
            Some(chosen(endpoints, |e| is_ready(e) && is_here(e))),
            Some(chosen(endpoints, |e| is_last(e) && is_here(e))),
            None,
        ])
    }

    fn new(tiers: [Option<Vec<Backend>>; 3]) -> Self {
        let tiers = tiers.into_iter().flatten().filter(|tier| !tier.is_empty());
        Self(tiers.map(Into::into).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &[Backend]> {
        self.0.iter().map(|tier| &**tier)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Near {
    fn has(self, endpoint: &Endpoint, node: &Node) -> bool {
        match self {
            Self::Node => endpoint.nodes.contains(&node.name),
            Self::Zone => node.zone.as_ref().is_some_and(|zone| endpoint.zones.contains(zone)),
        }
    }

    fn is_said(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Node => !endpoint.nodes.is_empty(),
            Self::Zone => !endpoint.zones.is_empty(),
        }
    }
}

/// What endpoints say counts if all that are ready say it, and one of them is for clients here: the node first, then the zone.
fn near(endpoints: &Endpoints<'_>, node: &Node) -> Option<Near> {
    let ready = || endpoints.values().filter(|endpoint| is_ready(endpoint));
    [Near::Node, Near::Zone].into_iter().find(|near| {
        ready().all(|endpoint| near.is_said(endpoint))
            && ready().any(|endpoint| near.has(endpoint, node))
    })
}

fn chosen(endpoints: &Endpoints<'_>, is_chosen: impl Fn(&Endpoint) -> bool) -> Vec<Backend> {
    let chosen = endpoints.iter().filter(|(_, endpoint)| is_chosen(endpoint));
    chosen.map(|(at, endpoint)| Backend { at: *at, pod: endpoint.pod }).collect()
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.is_ready
}

/// It is about to end, and still answers: for where there is nobody else (KEP-1669). One that is ready is in another tier.
fn is_last(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions;
    !conditions.is_ready && conditions.is_serving && conditions.is_terminating
}

#[cfg(test)]
mod tests;
