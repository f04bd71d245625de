//! What differs from one handshake as a client to the next: whom to expect, and whether the server asked who we are.
//! Configurations are made once and shared; rustls calls back while the task drives the handshake, and finds here which
//! one it is at.

use std::cell::Cell;

use rustls_pki_types::UnixTime;

use super::verifier::Refused;
use crate::trust::{Judge, PeerChain, Refusal, Role};

tokio::task_local! {
    static ENCOUNTER: Encounter;
}

struct Encounter {
    judge: Judge,
    was_asked: Cell<bool>,
}

impl Encounter {
    fn new(judge: Judge) -> Self {
        Self { judge, was_asked: Cell::new(false) }
    }
}

/// Shakes hands with a server that `judge` is to judge. Says also whether it has asked for our certificate: one that does
/// not never learns who we are.
pub async fn with_server<T>(judge: Judge, handshake: impl Future<Output = T>) -> (T, bool) {
    let shaking = async {
        let result = handshake.await;
        (result, ENCOUNTER.with(|encounter| encounter.was_asked.get()))
    };
    ENCOUNTER.scope(Encounter::new(judge), shaking).await
}

/// Judges the server. Outside of any handshake nobody is expected.
pub(super) fn judge(server: PeerChain<'_>, now: UnixTime) -> Result<(), Refused> {
    let judged = ENCOUNTER.try_with(|encounter| encounter.judge.judge(server, Role::Server, now));
    judged.unwrap_or(Err(Refusal::Nobody)).map(|_| ()).map_err(Refused)
}

/// The server has asked for our certificate, and can use it.
pub(super) fn asked() {
    // Outside of any handshake there is nobody to tell.
    let _ = ENCOUNTER.try_with(|encounter| encounter.was_asked.set(true));
}

/// As [`with_server`], for a client that blocks its thread.
#[cfg(test)]
pub fn with_server_blocking<T>(judge: Judge, handshake: impl FnOnce() -> T) -> T {
    ENCOUNTER.sync_scope(Encounter::new(judge), handshake)
}
