//! What policy says about inbound flows of a workload: who may call, and in which TLS.

use super::{Expectation, PresentedCertificate, Profile};

/// What a workload accepts from the network.
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    /// Who may call.
    pub callers: Expectation,
    /// For clients without an agent.
    pub standard: Option<InboundTls>,
}

/// TLS for clients without an agent.
#[derive(Clone, Debug)]
pub struct InboundTls {
    pub profile: Profile,
    pub certificate: PresentedCertificate,
    /// Who may call, in addition to the callers above.
    pub callers: Expectation,
}

impl Inbound {
    /// Who may call, as an agent or without one.
    #[must_use]
    pub fn expectation(&self, as_agent: bool) -> Expectation {
        match &self.standard {
            Some(standard) if !as_agent => self.callers.or(&standard.callers),
            _ => self.callers.clone(),
        }
    }
}
