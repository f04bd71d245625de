//! Messages to a service manager such as systemd (sd_notify(3)): that the agent is ready, so that units ordered after it
//! start protected; that it stops; and, if the unit has `WatchdogSec=`, that it still works.

use sd_notify::NotifyState;

/// Everything that protects is in force.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// No new flows from now on.
pub fn stopping() {
    tell(NotifyState::Stopping);
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
    if let Err(error) = sd_notify::notify(std::slice::from_ref(&state)) {
        tracing::warn!(%error, %state, "no message to the service manager; see NOTIFY_SOCKET");
    }
}
