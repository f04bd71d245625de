//! The traffic secrets of a handshake. rustls hands over the keys, but not the secrets from which the next keys are derived:
//! only a key log is told those. This log is for one handshake. It passes secrets to the caller, and nowhere else.

use std::cell::RefCell;

use rustls::KeyLog;
use zeroize::Zeroizing;

tokio::task_local! {
    static SECRETS: RefCell<Secrets>;
}

/// The key log of every TLS configuration: what it is given, [`collect`] returns.
#[derive(Debug)]
pub(super) struct SecretLog;

/// `application_traffic_secret_0` of both directions (RFC 8446, 7.1), when they are known.
#[derive(Default)]
pub(super) struct Secrets {
    pub client: Option<Zeroizing<Vec<u8>>>,
    pub server: Option<Zeroizing<Vec<u8>>>,
}

impl KeyLog for SecretLog {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let keep = |secrets: &RefCell<Secrets>| {
            let mut secrets = secrets.borrow_mut();
            let secret = Some(Zeroizing::new(secret.to_vec()));
            match label {
                "CLIENT_TRAFFIC_SECRET_0" => secrets.client = secret,
                "SERVER_TRAFFIC_SECRET_0" => secrets.server = secret,
                _ => {}
            }
        };
        // Outside of `collect`, nobody needs it.
        let _ = SECRETS.try_with(keep);
    }

    fn will_log(&self, label: &str) -> bool {
        label.ends_with("_TRAFFIC_SECRET_0")
    }
}

/// Drives a handshake one step. Returns the secrets that became known by it.
pub(super) fn collect<T>(step: impl FnOnce() -> T) -> (T, Secrets) {
    SECRETS.sync_scope(RefCell::default(), || {
        let done = step();
        (done, SECRETS.with(RefCell::take))
    })
}
