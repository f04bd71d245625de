//! The state of a flow that another process of the agent offers.
//!
//! It is refused, or a flow goes on from it whose state, saved again, is the same.

#![no_main]

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use sheath::pipeline::SavedFlow;
use sheath::relay::{IdleTimeouts, Relay};
use sheath::wire::buffers::Account;
use sheath::wire::modes;
use tokio::runtime::{Builder, Runtime};

/// Waits for connections, which nothing is said on.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_io().build().expect("a runtime"));

/// Both ends of a connection.
static CONNECTION: LazyLock<[TcpStream; 2]> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let dialled = TcpStream::connect(listener.local_addr().expect("its address"));
    let dialled = dialled.expect("a connection");
    dialled.set_nonblocking(true).expect("a connection that is not waited for");
    [dialled, listener.accept().expect("the same connection").0]
});

fuzz_target!(|input: &[u8]| {
    let Ok(flow) = SavedFlow::decode(input) else { return };
    let saved = flow.encode().expect("what was read can be written");
    let again = SavedFlow::decode(&saved).expect("what was written can be read");
    assert!(*again.encode().expect("as before") == *saved);
    if let Ok(relay) = Relay::restore(&flow.relay, IdleTimeouts::default()) {
        let relay = relay.save().expect("what was restored can be saved");
        assert!(Relay::restore(&relay, IdleTimeouts::default()).is_ok());
    }
    let _entered = RUNTIME.enter();
    let account = Account::new(Arc::default(), usize::MAX);
    let restored = |wire| {
        let tcp = CONNECTION[0].try_clone().expect("another descriptor");
        modes::restore(wire, tcp, account.clone())
    };
    if let Ok(session) = restored(&flow.wire) {
        let wire = session.save().expect("what was restored can be saved");
        let same = restored(&wire).expect("what was saved can be restored");
        let once_more = same.save().expect("as before");
        assert_eq!(once_more.mode, wire.mode);
        assert!(*once_more.state.to_bytes() == *wire.state.to_bytes());
    }
    drop(flow);
    assert_eq!(account.leased(), 0);
});
