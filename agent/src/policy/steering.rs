//! Policy as capture sees it: the rules for the kernel, and what the kernel decides about outbound connections. It is
//! computed by the same function over the same rules, and names the rule that decides.

use std::net::SocketAddr;

use ipnet::IpNet;
use sheath_common::net::Endpoint;
use sheath_common::verdict::{
    Action, Best, Denial, Destination, Ground, SCOPE_ALL, Verdict, decide_by,
};
use sheath_common::workload::{InboundMode, WorkloadId};

use super::{Policy, PolicyError};
use crate::directory::Found;
use crate::origin::Origin;
use crate::steering::{KernelRule, Steering, sum_up};

/// Prefixes to which routes are looked up in each namespace.
const MAX_ROUTED: usize = 1024;

/// What the kernel does with a connection, and the rule that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    pub rule: Origin,
}

impl Policy {
    /// What the kernel decides about a connection of `workload` to `destination`, with the rule that says so.
    #[must_use]
    pub fn decide(&self, workload: WorkloadId, destination: SocketAddr) -> Option<Decision> {
        let policy = self.workloads.get(&workload)?;
        let own = policy.bypass.candidates(destination).map(|found| {
            found.map(|(length, rule)| (Destination::new(Action::Bypass, length), Some(rule)))
        });
        let all = self.targets.candidates(destination).map(|found| {
            found.map(|(length, to)| (Destination::new(Action::Protect, length), to.rule()))
        });
        let [own_with_port, own_any] = own;
        let [all_with_port, all_any] = all;
        let candidates =
            [(own_with_port, true), (own_any, false), (all_with_port, true), (all_any, false)];
        let (mut best, mut rule) = (Best::default(), None);
        for (candidate, names_port) in candidates {
            let Some((destination, origin)) = candidate else { continue };
            let better = best.or(Some(&destination), names_port);
            if better != best {
                (best, rule) = (better, origin);
            }
        }
        if best == Best::default() {
            let action = match self.directory.load().find(destination) {
                Found::Protected { .. } | Found::Unknown => Some(Action::Protect),
                Found::Pending { .. } | Found::Closed => Some(Action::Refuse),
                Found::Bypassed => Some(Action::Bypass),
                Found::Plain => Some(Action::Plain),
                Found::Outside => None,
            };
            if let Some(action) = action {
                (best, rule) = (Best::of_directory(action), Some(&Origin::Directory));
            }
        }
        let config = &policy.config;
        let endpoint = Endpoint::from(destination);
        let (verdict, ground) = decide_by(config.outbound.mode, &endpoint, best);
        let rule = match ground {
            Ground::BuiltIn => Origin::BuiltIn,
            Ground::Mode => config.origin.field("outbound.mode"),
            Ground::Rule => rule.cloned().unwrap_or(Origin::BuiltIn),
        };
        Some(Decision { verdict, rule })
    }
}

impl Steering for Policy {
    fn kernel_rules(&self) -> Vec<KernelRule> {
        let rule = |scope, action| move |destination| KernelRule { scope, destination, action };
        let mut rules: Vec<_> =
            self.targets.destinations().map(rule(SCOPE_ALL, Action::Protect)).collect();
        for (id, workload) in &self.workloads {
            rules.extend(workload.bypass.destinations().map(rule(*id, Action::Bypass)));
        }
        rules
    }

    fn protected_prefixes(&self) -> Vec<IpNet> {
        let directory = self.directory.load();
        let written = self.targets.destinations().map(|destination| destination.prefix);
        sum_up(written.chain(directory.ranges().iter().copied()), MAX_ROUTED)
    }

    fn verdict(&self, workload: WorkloadId, destination: SocketAddr) -> Option<Verdict> {
        self.decide(workload, destination).map(|decision| decision.verdict)
    }

    fn rule_of_denial(
        &self,
        workload: WorkloadId,
        destination: SocketAddr,
        denial: u32,
    ) -> Option<Origin> {
        let Decision { verdict, rule } = self.decide(workload, destination)?;
        matches!(verdict, Verdict::Deny(reason) if reason as u32 == denial).then_some(rule)
    }

    fn why_denied(&self, destination: SocketAddr, denial: u32) -> Option<String> {
        let refused = self.target_at(destination).err();
        let refused = refused.filter(|_| denial == Denial::NobodyReady as u32);
        refused.filter(|error| matches!(error, PolicyError::Pending { .. })).map(|e| e.to_string())
    }

    fn covers_inbound(&self, workload: WorkloadId, port: u16) -> bool {
        self.workloads.get(&workload).is_some_and(|policy| {
            let inbound = &policy.config.inbound;
            inbound.mode != InboundMode::Disabled
                && (inbound.ports.is_empty() || inbound.ports.contains(&port))
        })
    }

    fn workload_name(&self, workload: WorkloadId) -> Option<&str> {
        self.workload(workload).map(|config| config.name.as_str())
    }
}
