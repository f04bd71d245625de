//! The calls that the runtime makes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::Message;

use super::describe;
use super::messages::{
    ConfigureRequest, ConfigureResponse, Empty, Event, PLUGIN, PodSandbox, SandboxRequest,
    StateChangeEvent, SynchronizeRequest, SynchronizeResponse,
};
use super::patience::Patience;
use super::ttrpc::{Code, Request, Response};
use crate::gate::{Doorkeeper, MAX_SANDBOXES, NotAdmitted, Sandbox, SandboxId};
use crate::sys::netns::NetworkNamespace;

/// How long a runtime waits unless it says otherwise (containerd/nri, `pkg/api/timeouts.go`), and what is believed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const BELIEVED: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(60)];

/// Part of that after which there is an answer. A runtime that has waited in vain closes the connection, and starts the pod.
const MARGIN: f64 = 0.75;

/// What the runtime says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Name and version.
    pub name: String,
    pub request_timeout: Duration,
}

/// One connection's calls. A new connection begins anew.
pub struct Service {
    doorkeeper: Arc<dyn Doorkeeper>,
    own: NetworkNamespace,
    runtime: Option<Runtime>,
    patience: Arc<Mutex<Patience>>,
    /// Of messages that say that more will come.
    present: Vec<Sandbox>,
}

/// What to do with a call.
pub enum Call {
    Answer(Response),
    /// The runtime has said how it is to be treated: it is connected now.
    Configured(Response),
    /// The runtime asks for a sandbox, and the answer takes time.
    Ask(Question),
}

/// The runtime's question whether a sandbox may start.
pub struct Question {
    sandbox: Sandbox,
    doorkeeper: Arc<dyn Doorkeeper>,
    patience: Arc<Mutex<Patience>>,
    deadline: Instant,
}

impl Service {
    #[must_use]
    pub fn new(doorkeeper: Arc<dyn Doorkeeper>, own: NetworkNamespace) -> Self {
        Self {
            doorkeeper,
            own,
            runtime: None,
            patience: patience(REQUEST_TIMEOUT),
            present: Vec::new(),
        }
    }

    /// As it has been configured.
    #[must_use]
    pub fn runtime(&self) -> Option<&Runtime> {
        self.runtime.as_ref()
    }

    /// Takes a call that came at `now`.
    pub fn call(&mut self, request: &Request, now: Instant) -> Call {
        if request.service != PLUGIN {
            let message = format!("service {:.80}", request.service);
            return Call::Answer(Response::failed(Code::Unimplemented, &message));
        }
        let payload = request.payload.as_slice();
        let handled = match request.method.as_str() {
            "Configure" => {
                ConfigureRequest::decode(payload).map(|configure| self.configure(&configure))
            }
            "Synchronize" => SynchronizeRequest::decode(payload).map(|more| self.synchronize(more)),
            "RunPodSandbox" => SandboxRequest::decode(payload)
                .map(|run| self.event(Event::Run as i32, run.pod, request, now)),
            "StopPodSandbox" => SandboxRequest::decode(payload)
                .map(|stop| self.event(Event::Stop as i32, stop.pod, request, now)),
            "RemovePodSandbox" => SandboxRequest::decode(payload)
                .map(|remove| self.event(Event::Remove as i32, remove.pod, request, now)),
            "StateChange" => StateChangeEvent::decode(payload)
                .map(|change| self.event(change.event, change.pod, request, now)),
            "Shutdown" => Ok(Call::Answer(Response::ok(&Empty {}))),
            method => {
                let message = format!("method {method:.80}");
                return Call::Answer(Response::failed(Code::Unimplemented, &message));
            }
        };
        handled.unwrap_or_else(|error| {
            Call::Answer(Response::failed(Code::InvalidArgument, &format!("sheath: {error}")))
        })
    }

    fn configure(&mut self, configure: &ConfigureRequest) -> Call {
        let told = u64::try_from(configure.request_timeout).unwrap_or_default();
        let request_timeout = match told {
            0 => REQUEST_TIMEOUT,
            told => Duration::from_millis(told).clamp(BELIEVED[0], BELIEVED[1]),
        };
        let name = format!("{} {}", configure.runtime_name, configure.runtime_version);
        self.patience = patience(request_timeout);
        self.runtime = Some(Runtime { name: presentable(&name), request_timeout });
        Call::Configured(Response::ok(&ConfigureResponse { events: Event::mask() }))
    }

    fn synchronize(&mut self, request: SynchronizeRequest) -> Call {
        for pod in request.pods {
            if self.present.len() == MAX_SANDBOXES {
                tracing::warn!(
                    MAX_SANDBOXES,
                    "the runtime has more sandboxes; others are left out"
                );
                break;
            }
            if Sandbox::is_static(&pod.uid) {
                continue;
            }
            match describe::sandbox(pod, &self.own) {
                Ok(sandbox) => self.present.push(sandbox),
                Err(error) => tracing::debug!(%error, "a sandbox that is no pod's"),
            }
        }
        if !request.more {
            self.doorkeeper.present(std::mem::take(&mut self.present));
        }
        Call::Answer(Response::ok(&SynchronizeResponse { more: request.more }))
    }

    fn event(&self, event: i32, pod: Option<PodSandbox>, request: &Request, now: Instant) -> Call {
        let done = || Call::Answer(Response::ok(&Empty {}));
        let is = |known: Event| event == known as i32;
        let Some(pod) = pod else {
            return refuse("a sandbox", NotAdmitted::Malformed("it does not say which".to_owned()));
        };
        if is(Event::Stop) || is(Event::Remove) {
            if let Ok(id) = SandboxId::new(&pod.id) {
                self.doorkeeper.gone(&id);
            }
            return done();
        }
        if !is(Event::Run) || Sandbox::is_static(&pod.uid) {
            return done();
        }
        let whose = presentable(&format!("pod {}/{} ({})", pod.namespace, pod.name, pod.uid));
        match describe::sandbox(pod, &self.own) {
            Ok(sandbox) => Call::Ask(Question {
                sandbox,
                doorkeeper: self.doorkeeper.clone(),
                patience: self.patience.clone(),
                deadline: now + self.limit(request).mul_f64(MARGIN),
            }),
            Err(error) => refuse(&whose, NotAdmitted::Malformed(error.to_string())),
        }
    }

    /// How long the runtime waits for the answer: what it said at first, or less if it says so now.
    fn limit(&self, request: &Request) -> Duration {
        let limit =
            self.runtime.as_ref().map_or(REQUEST_TIMEOUT, |runtime| runtime.request_timeout);
        match request.timeout_nano {
            0 => limit,
            nanos => limit.min(Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())),
        }
    }
}

impl Question {
    /// Answers in time, whatever happens: whether the sandbox was admitted, and what to tell the runtime.
    pub async fn answer(self) -> (bool, Response) {
        let (pod, uid) = (self.sandbox.pod.clone(), self.sandbox.uid);
        let begun = Instant::now();
        let patience = || self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = self.deadline.min(begun + patience().allows(begun));
        let mut admission = ask(&*self.doorkeeper, self.sandbox.clone(), deadline).await;
        if admission.as_ref().is_err_and(is_agents_own) && deadline < self.deadline {
            admission = ask(&*self.doorkeeper, self.sandbox, self.deadline).await;
        }
        match admission {
            Ok(()) => (true, Response::ok(&Empty {})),
            Err(why) => {
                if !is_agents_own(&why) {
                    patience().charge(begun, Instant::now());
                }
                tracing::info!(%pod, %uid, reason = ?why.reason(), "sandbox not started: {why}");
                (false, Response::failed(Code::FailedPrecondition, &why.about(&pod, &uid)))
            }
        }
    }

    /// Answers without asking anybody.
    #[must_use]
    pub fn overloaded(&self) -> Response {
        let text = NotAdmitted::Overloaded.about(&self.sandbox.pod, &self.sandbox.uid);
        Response::failed(Code::FailedPrecondition, &text)
    }
}

/// Asks a doorkeeper, which answers by itself. If it does not, it must not be the runtime that ends this.
async fn ask(
    doorkeeper: &dyn Doorkeeper,
    sandbox: Sandbox,
    deadline: Instant,
) -> Result<(), NotAdmitted> {
    let at_last = tokio::time::Instant::from_std(deadline) + OVERTIME;
    let admission = tokio::time::timeout_at(at_last, doorkeeper.admit(sandbox, deadline)).await;
    admission.unwrap_or(Err(NotAdmitted::Undecided))
}

/// True if all is known of a pod, and what it waits for is the agent's own work. That is soon done, if the machine lets it: to refuse the
/// sandbox costs the machine more than to wait, and then it comes again.
fn is_agents_own(why: &NotAdmitted) -> bool {
    matches!(why, NotAdmitted::NamespaceNotServed(_))
}

/// What a doorkeeper that is late gets.
const OVERTIME: Duration = Duration::from_millis(20);

fn patience(request_timeout: Duration) -> Arc<Mutex<Patience>> {
    Arc::new(Mutex::new(Patience::new(request_timeout.mul_f64(MARGIN), Instant::now())))
}

fn refuse(whose: &str, why: NotAdmitted) -> Call {
    let text = format!("sheath: {whose}: {why}");
    tracing::warn!("sandbox not started: {text}");
    Call::Answer(Response::failed(Code::FailedPrecondition, &text))
}

/// What somebody else wrote, for people: short, on one line, without control characters.
pub fn presentable(text: &str) -> String {
    let shown = text.chars().take(400);
    shown.map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>().trim().to_owned()
}
