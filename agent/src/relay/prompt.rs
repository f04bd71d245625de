//! Prompt acknowledgements for applications with small send buffers.
//!
//! An application's leg runs over loopback, whose segments hold 64 KiB. A smaller buffer is less than one of them, and less
//! than a receiver acknowledges at once: it waits for more, which does not come before it has acknowledged what there is
//! (RFC 9293, 3.8.6.3). Each buffer then waits for 40 ms.

use tokio::net::TcpStream;

use crate::sys::sockopt;

/// A shorter write is a message, and its answer acknowledges it.
const MESSAGE: u64 = 2 * 1024;

/// Acknowledges an application's bytes as soon as all of them have been read.
#[derive(Debug, Default)]
pub struct Prompt {
    acknowledged: u64,
}

impl Prompt {
    /// When this much was acknowledged.
    pub fn after(acknowledged: u64) -> Self {
        Self { acknowledged }
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Everything that `app` has sent so far was read: `read` bytes in all.
    pub fn emptied(&mut self, app: &TcpStream, read: u64) {
        if read - self.acknowledged >= MESSAGE {
            // If it fails, the flow is slower.
            let _ = sockopt::acknowledge(app);
            self.acknowledged = read;
        }
    }
}
