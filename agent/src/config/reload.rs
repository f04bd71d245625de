//! Which keys can change while an agent runs.

use super::Config;

/// A key has changed that only a restart can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} has changed, which takes a restart of the agent")]
pub struct NeedsRestart(pub &'static str);

impl Config {
    /// Whether a running agent can change over to `new`.
    ///
    /// # Errors
    /// The first key that takes a restart.
    pub fn check_reload(&self, new: &Self) -> Result<(), NeedsRestart> {
        let is_same_kubelet = match (&self.pods, &new.pods) {
            (Some(before), Some(now)) => before.kubelet == now.kubelet,
            _ => true,
        };
        let keys = [
            ("trustDomain", self.trust_domain == new.trust_domain),
            ("node", self.node == new.node),
            ("instance", self.instance == new.instance),
            ("kubernetes.kubelet", is_same_kubelet),
            ("capture", (&self.capture, &self.pods) == (&new.capture, &new.pods)),
            ("kubernetes.gate", self.gate == new.gate),
            ("kubernetes.bypassServices", self.bypassed_services == new.bypassed_services),
            ("log", self.log == new.log),
            ("timeouts", (self.timeouts, self.drain) == (new.timeouts, new.drain)),
            ("sessions.reuse", self.reuse == new.reuse),
            ("limits", self.limits == new.limits),
        ];
        match keys.iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((key, _)) => Err(NeedsRestart(key)),
        }
    }
}
