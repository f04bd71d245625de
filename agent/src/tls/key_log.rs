//! The traffic secrets of a handshake. rustls hands over the keys; the secrets that the next keys are derived from it tells
//! only a key log. This log is for one handshake: what it is told goes to the caller, and nowhere else.

use std::cell::RefCell;

use rustls::KeyLog;
use zeroize::Zeroizing;

tokio::task_local! {
    static TOLD: RefCell<Told>;
}

/// What configurations are made with, so that [`listen`] hears something.
#[derive(Debug)]
pub(super) struct OwnLog;

/// `application_traffic_secret_0` of both directions (RFC 8446, 7.1), when they are known.
#[derive(Default)]
pub(super) struct Told {
    pub client: Option<Zeroizing<Vec<u8>>>,
    pub server: Option<Zeroizing<Vec<u8>>>,
}

impl KeyLog for OwnLog {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let keep = |told: &RefCell<Told>| {
            let mut told = told.borrow_mut();
            let secret = Some(Zeroizing::new(secret.to_vec()));
            match label {
                "CLIENT_TRAFFIC_SECRET_0" => told.client = secret,
                "SERVER_TRAFFIC_SECRET_0" => told.server = secret,
                _ => {}
            }
        };
        // Where nobody listens, nobody needs it.
        let _ = TOLD.try_with(keep);
    }

    fn will_log(&self, label: &str) -> bool {
        label.ends_with("_TRAFFIC_SECRET_0")
    }
}

/// Drives a handshake one step, and says what became known by it.
pub(super) fn listen<T>(step: impl FnOnce() -> T) -> (T, Told) {
    TOLD.sync_scope(RefCell::default(), || {
        let done = step();
        (done, TOLD.with(RefCell::take))
    })
}
