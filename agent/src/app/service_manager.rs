//! What a service manager such as systemd is told (sd_notify(3)): that the agent is ready, so that units ordered after it
//! start protected; that it stops; and, where it asks for that (`WatchdogSec=`), that it still works.

use sd_notify::NotifyState;

/// Everything that protects is in force.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// No new flows from now on.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Says again and again that the agent works: whenever `answer` is done, which should ask those who do the work. Ends at
/// once where nobody wants to know.
pub async fn keep_proving<A: Future<Output = ()>>(answer: impl Fn() -> A) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return;
    };
    loop {
        answer().await;
        // The manager may be busy itself, and telling it is to hold up nobody.
        let _ = tokio::task::spawn_blocking(|| tell(NotifyState::Watchdog)).await;
        // Half of it, as sd_watchdog_enabled(3) advises.
        tokio::time::sleep(limit / 2).await;
    }
}

fn tell(state: NotifyState<'static>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(&state)) {
        tracing::warn!(%error, %state, "the service manager was not told; see NOTIFY_SOCKET");
    }
}
