//! The plugin against a runtime.

mod abuse;
mod framing;
mod gate;
mod lifecycle;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::testing::{FakeRuntime, uid};
use super::*;
use crate::gate::{GateSettings, PodState, PodStates};
use sheath_common::pod_uid::PodUid;

/// Of the runtime: shorter than in reality.
const LIMIT: Duration = Duration::from_secs(2);

/// The plugin at work.
struct Agent {
    states: Arc<PodStates>,
    status: watch::Receiver<NriStatus>,
    running: JoinHandle<()>,
}

impl Agent {
    fn start(runtime: &FakeRuntime) -> Self {
        let states = Arc::new(PodStates::new(&GateSettings::default()));
        let (sender, status) = watch::channel(NriStatus::default());
        let plugin = plugin(runtime, states.clone(), sender);
        Self { states, status, running: tokio::spawn(plugin.run()) }
    }

    fn set(&self, number: usize, state: PodState) {
        self.states.set(pod_uid(number), state);
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&NriStatus) -> bool) -> NriStatus {
        let waiting = self.status.wait_for(|status| holds(status));
        let status = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        status.unwrap_or_else(|_| panic!("not within 10 s: {what}")).unwrap().clone()
    }

    async fn until_not_connected(&mut self, error: &str) {
        let ended = |status: &NriStatus| {
            status.connected_since.is_none()
                && status.last_error.as_ref().is_some_and(|last| last.contains(error))
        };
        self.until(error, ended).await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn plugin(
    runtime: &FakeRuntime,
    doorkeeper: Arc<dyn Doorkeeper>,
    status: watch::Sender<NriStatus>,
) -> Plugin {
    let limits =
        Limits { stalled: Duration::from_millis(300), configured: Duration::from_millis(600) };
    let random = crate::peer::crypto_provider().secure_random;
    let name = "sheath".to_owned();
    Plugin { name, socket: runtime.socket(), doorkeeper, status, random, limits }
}

fn pod_uid(number: usize) -> PodUid {
    uid(number).parse().unwrap()
}
