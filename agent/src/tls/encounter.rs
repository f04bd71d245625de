//! What differs from one handshake to the next: whom a client is to expect, who the peer turns out to be, and whether a
//! server asked who we are. Configurations are made once and shared; rustls calls back while the task drives the handshake,
//! and finds here which one it is at.

use std::cell::Cell;

use rustls_pki_types::UnixTime;

use super::verifier::Refused;
use crate::trust::{Judge, Judged, PeerChain, Refusal, Role};

tokio::task_local! {
    static ENCOUNTER: Encounter;
}

#[derive(Default)]
struct Encounter {
    /// Of servers.
    judge: Option<Judge>,
    peer: Cell<Option<Judged>>,
    was_asked: Cell<bool>,
}

/// What is learnt in a handshake.
pub struct Learnt {
    /// Who the peer is, if it has shown that.
    pub peer: Option<Judged>,
    /// The server has asked for our certificate: one that does not never learns who we are.
    pub was_asked: bool,
}

/// Shakes hands with a server that `judge` is to judge.
pub async fn with_server<T>(judge: Judge, handshake: impl Future<Output = T>) -> (T, Learnt) {
    with(Encounter { judge: Some(judge), ..Encounter::default() }, handshake).await
}

/// Shakes hands with a client.
pub async fn with_client<T>(handshake: impl Future<Output = T>) -> (T, Learnt) {
    with(Encounter::default(), handshake).await
}

async fn with<T>(encounter: Encounter, handshake: impl Future<Output = T>) -> (T, Learnt) {
    let shaking = async {
        let result = handshake.await;
        let learnt = ENCOUNTER.with(|encounter| Learnt {
            peer: encounter.peer.take(),
            was_asked: encounter.was_asked.get(),
        });
        (result, learnt)
    };
    ENCOUNTER.scope(encounter, shaking).await
}

/// Judges the server. Outside of any handshake nobody is expected.
pub(super) fn judge(server: PeerChain<'_>, now: UnixTime) -> Result<(), Refused> {
    let judged = ENCOUNTER.try_with(|encounter| {
        let judge = encounter.judge.as_ref().ok_or(Refusal::Nobody)?;
        encounter.peer.set(Some(judge.judge(server, Role::Server, now)?));
        Ok(())
    });
    judged.unwrap_or(Err(Refusal::Nobody)).map_err(Refused)
}

/// A client has shown who it is.
pub(super) fn met(client: Judged) {
    // Outside of any handshake there is nobody to tell.
    let _ = ENCOUNTER.try_with(|encounter| encounter.peer.set(Some(client)));
}

/// The server has asked for our certificate, and can use it.
pub(super) fn asked() {
    // Outside of any handshake there is nobody to tell.
    let _ = ENCOUNTER.try_with(|encounter| encounter.was_asked.set(true));
}

/// As [`with_server`], for a client that blocks its thread.
#[cfg(test)]
pub fn with_server_blocking<T>(judge: Judge, handshake: impl FnOnce() -> T) -> T {
    ENCOUNTER.sync_scope(Encounter { judge: Some(judge), ..Encounter::default() }, handshake)
}
