//! The gate that is wanted, at work.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::crypto::SecureRandom;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::keep::keep;
use super::keeper::Doorkeeper;
use super::nri::{Limits, Plugin};
use super::settings::{GateKind, GateSettings};
use super::socket::{Asked, Server};
use super::status::{CniStatus, GateStatus, InForce, NriStatus};

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the gate socket {}: {error}", path.display())]
pub struct GateError {
    path: PathBuf,
    error: io::Error,
}

/// A gate. Dropping it ends it: the runtime then starts pods without asking the agent where NRI asks, and starts none where
/// CNI does.
#[derive(Debug)]
pub struct Gate {
    wanted: GateKind,
    nri: watch::Receiver<NriStatus>,
    cni: watch::Receiver<CniStatus>,
    tasks: Mutex<JoinSet<()>>,
}

impl Gate {
    /// Begins to ask `doorkeeper` about every sandbox. `instance` names the agent to the runtime, `socket` is where its gate
    /// socket is to be.
    ///
    /// # Errors
    /// If the gate socket cannot be opened.
    pub fn start(
        settings: &GateSettings,
        instance: &str,
        socket: &Path,
        doorkeeper: Arc<dyn Doorkeeper>,
        random: &'static dyn SecureRandom,
    ) -> Result<Self, GateError> {
        let (nri_status, nri) = watch::channel(NriStatus::default());
        let (cni_status, cni) = watch::channel(CniStatus::default());
        let mut tasks = JoinSet::new();
        if matches!(settings.gate, GateKind::Auto | GateKind::Cni) {
            let server = Server::bind(socket)
                .map_err(|error| GateError { path: socket.to_owned(), error })?;
            cni_status.send_modify(|status| status.is_open = true);
            if let Some(installation) = settings.installation.clone() {
                tasks.spawn(keep(installation, socket.to_owned(), cni_status.clone()));
            }
            tasks.spawn(server.serve(doorkeeper.clone(), Arc::new(Counting(cni_status))));
        }
        if matches!(settings.gate, GateKind::Auto | GateKind::Nri) {
            let plugin = Plugin {
                name: plugin_name(instance),
                socket: settings.nri_socket.clone(),
                doorkeeper,
                status: nri_status,
                random,
                limits: Limits::default(),
            };
            tasks.spawn(plugin.run());
        }
        Ok(Self { wanted: settings.gate, nri, cni, tasks: tasks.into() })
    }

    /// Ends it now, and returns when nothing of it is left: a successor has its own.
    pub async fn close(&self) {
        let mut tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        tasks.shutdown().await;
    }

    /// As it is now.
    #[must_use]
    pub fn status(&self) -> GateStatus {
        let (nri, cni) = (self.nri.borrow().clone(), self.cni.borrow().clone());
        let in_force = match self.wanted {
            GateKind::None => InForce::None,
            _ if nri.connected_since.is_some() => InForce::Nri,
            // Where somebody else installs the plugin, it is known to be there once it has asked.
            _ if cni.installed || (cni.last_asked.is_some() && cni.problem.is_none()) => {
                InForce::Cni
            }
            _ => InForce::None,
        };
        GateStatus { wanted: self.wanted, in_force, nri, cni }
    }
}

/// What pods name that require the plugin: `sheath`, or `sheath-blue` for the instance `blue`.
fn plugin_name(instance: &str) -> String {
    match instance {
        "default" => "sheath".to_owned(),
        instance => format!("sheath-{instance}"),
    }
}

/// Keeps the gate socket's status.
struct Counting(watch::Sender<CniStatus>);

impl Asked for Counting {
    fn answered(&self, admitted: bool) {
        self.0.send_modify(|status| {
            let count = if admitted { &mut status.admitted } else { &mut status.not_admitted };
            *count += 1;
            status.last_asked = Some(SystemTime::now());
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::gate::nri::testing::{FakeRuntime, pod};
    use crate::gate::socket::{AskedSandbox, Operation, Request, ask};
    use crate::gate::{PodState, PodStates};

    #[test]
    fn a_plugin_is_named_for_its_instance() {
        assert_eq!(plugin_name("default"), "sheath");
        assert_eq!(plugin_name("blue_2"), "sheath-blue_2");
    }

    async fn until(gate: &Gate, in_force: InForce) {
        let begun = Instant::now();
        while gate.status().in_force != in_force {
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", gate.status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_is_in_force_is_what_asks() {
        let mut runtime = FakeRuntime::stopped();
        let nri_socket = runtime.socket();
        let gate_socket = nri_socket.with_file_name("gate.sock");
        let random = crate::peer::crypto_provider().secure_random;
        let start = |kind| {
            let settings = GateSettings {
                gate: kind,
                nri_socket: nri_socket.clone(),
                ..GateSettings::default()
            };
            let states = Arc::new(PodStates::new(&settings));
            states.set(pod(1).uid.parse().unwrap(), PodState::Plain);
            Gate::start(&settings, "blue", &gate_socket, states, random).unwrap()
        };
        drop(start(GateKind::None));
        let gate = start(GateKind::Auto);
        assert_eq!(gate.status().in_force, InForce::None, "nobody has asked yet");
        let pod = pod(1);
        let sandbox =
            AskedSandbox { id: pod.id, uid: pod.uid, namespace: pod.namespace, name: pod.name };
        let request = Request::new(Operation::Admit, Some(sandbox));
        let deadline = Instant::now() + Duration::from_secs(5);
        let socket = gate_socket.clone();
        let asking = move || ask(&socket, &request, None::<&File>, deadline, false).unwrap();
        assert!(tokio::task::spawn_blocking(asking).await.unwrap().ok);
        until(&gate, InForce::Cni).await;
        runtime.start();
        let taken = runtime.take(Duration::from_secs(2), Vec::new()).await;
        assert_eq!(taken.registration.plugin_name, "sheath-blue");
        until(&gate, InForce::Nri).await;
        runtime.kill();
        taken.close().await;
        until(&gate, InForce::Cni).await;
        drop(gate);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!gate_socket.exists(), "it goes with the gate");
    }
}
