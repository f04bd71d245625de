//! What differs from one handshake to the next: the judge of a server, who the peer turns out to be, and whether a server
//! requested our certificate. TLS configurations are made once and shared. The TLS library calls back while the task drives
//! the handshake, and the context of that task says which handshake it is.

use std::cell::Cell;

use rustls_pki_types::UnixTime;

use crate::flow::Role;
use crate::peer::{Judge, Judged, Refusal};
use crate::trust::PeerChain;

tokio::task_local! {
    static CONTEXT: HandshakeContext;
}

struct HandshakeContext {
    /// The side that the peer is on.
    role: Role,
    /// The judge of a server. Clients are judged by the configuration that they come to.
    judge: Option<Judge>,
    peer: Cell<Option<Judged>>,
    /// The peer asks for our certificate. Every client learns it; a server only if it requests it.
    is_mutual: Cell<bool>,
}

/// The outcome of a handshake.
pub(super) struct Outcome {
    /// Who the peer is, if it has shown that.
    pub peer: Option<Judged>,
    /// The side that it is on.
    pub role: Role,
    /// Both sides have shown certificates.
    pub is_mutual: bool,
}

impl HandshakeContext {
    fn of_server(judge: Judge) -> Self {
        let (peer, is_mutual) = (Cell::default(), Cell::new(false));
        Self { role: Role::Server, judge: Some(judge), peer, is_mutual }
    }

    /// Without a certificate of the client there is no handshake.
    fn of_client() -> Self {
        let (peer, is_mutual) = (Cell::default(), Cell::new(true));
        Self { role: Role::Client, judge: None, peer, is_mutual }
    }
}

/// Runs a handshake with a server, which `judge` is to judge.
pub(super) async fn with_server<T>(
    judge: Judge,
    handshake: impl Future<Output = T>,
) -> (T, Outcome) {
    with(HandshakeContext::of_server(judge), handshake).await
}

/// Runs a handshake with a client.
pub(super) async fn with_client<T>(handshake: impl Future<Output = T>) -> (T, Outcome) {
    with(HandshakeContext::of_client(), handshake).await
}

async fn with<T>(context: HandshakeContext, handshake: impl Future<Output = T>) -> (T, Outcome) {
    let handshake = async {
        let result = handshake.await;
        let outcome = CONTEXT.with(|context| Outcome {
            peer: context.peer.take(),
            role: context.role,
            is_mutual: context.is_mutual.get(),
        });
        (result, outcome)
    };
    CONTEXT.scope(context, handshake).await
}

/// Judges the server. `None` outside of any handshake, where nobody is expected.
pub(super) fn judge_server(server: PeerChain<'_>, now: UnixTime) -> Option<Result<(), Refusal>> {
    let judged = CONTEXT.try_with(|context| {
        let judged = context.judge.as_ref()?.judge(server, context.role, now);
        Some(judged.map(|judged| context.peer.set(Some(judged))))
    });
    judged.ok().flatten()
}

/// The client has been judged, and may call.
pub(super) fn client_is(client: Judged) {
    // Outside of a handshake there is no context.
    let _ = CONTEXT.try_with(|context| context.peer.set(Some(client)));
}

/// The server has requested our certificate, and can use it.
pub(super) fn certificate_requested() {
    // Outside of a handshake there is no context.
    let _ = CONTEXT.try_with(|context| context.is_mutual.set(true));
}

/// As [`with_server`], for a client that blocks its thread.
#[cfg(test)]
pub fn with_server_blocking<T>(judge: Judge, handshake: impl FnOnce() -> T) -> T {
    CONTEXT.sync_scope(HandshakeContext::of_server(judge), handshake)
}
