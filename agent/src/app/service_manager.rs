//! Messages to a service manager such as systemd (sd_notify(3)): that the agent is ready, so that units ordered after it
//! start protected; that it stops; and, if the unit has `WatchdogSec=`, that it still works.

use std::env;
use std::time::Duration;

use sd_notify::NotifyState;

/// Everything that protects is in force.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// No new flows from now on.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Whether there is one.
#[must_use]
pub fn is_there() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// How long a manager that is busy is waited for where it has to hear something before this process ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// From now on the agent is another process, which answers for itself. What this one says afterwards is not heard.
///
/// The new one is given all of the watchdog's time: what it has said before this was not heard either.
pub async fn is_replaced_by(pid: u32) {
    let tell = move || tell_all(&[NotifyState::MainPid(pid), NotifyState::Watchdog]);
    // A message to a manager that does not read must block no task.
    if tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(tell)).await.is_err() {
        tracing::warn!(pid, "the service manager does not hear that this is its main process now");
    }
}

/// Reports again and again that the agent works, whenever `answer` is done: it should ask the tasks that do the work. Ends at
/// once if the service manager has no watchdog for us.
pub async fn keep_proving<A: Future<Output = ()>>(answer: impl Fn() -> A) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return;
    };
    loop {
        answer().await;
        // The manager may be busy, and a message to it must block no task.
        let _ = tokio::task::spawn_blocking(|| tell(NotifyState::Watchdog)).await;
        // Half of it, as sd_watchdog_enabled(3) advises.
        tokio::time::sleep(limit / 2).await;
    }
}

fn tell(state: NotifyState<'static>) {
    tell_all(&[state]);
}

/// In one message.
fn tell_all(states: &[NotifyState<'static>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, ?states, "no message to the service manager; see NOTIFY_SOCKET");
    }
}
