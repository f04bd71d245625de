//! A session's records for another process: keys and their numbers, and every byte that is on its way.

use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::{Inbox, Outbox, RecordKeys, RecordStream};
use crate::wire::buffers::{Account, Size};
use crate::wire::record::{Opener, SavedOpener, SavedSecret, Sealer, TrafficSecret};
use crate::wire::saved::NotRestored;

/// The state of a [`RecordStream`].
#[derive(Serialize, Deserialize)]
pub struct SavedRecords {
    sending: SavedSecret,
    /// The number of the next record that is sealed.
    sealed: u64,
    receiving: SavedSecret,
    opener: SavedOpener,
    owes_key_update: bool,
    has_said_goodbye: bool,
    unsent: Vec<u8>,
    sending_size: Size,
    /// What waits for the application.
    for_app: Zeroizing<Vec<u8>>,
    /// What else is open.
    open: Zeroizing<Vec<u8>>,
    unopened: Vec<u8>,
    receiving_size: Size,
}

impl RecordStream {
    #[must_use]
    pub fn save(&self) -> SavedRecords {
        let slices = self.for_app();
        let mut for_app = Vec::with_capacity(slices.as_slice().iter().map(|s| s.len()).sum());
        for slice in slices.as_slice() {
            for_app.extend_from_slice(slice);
        }
        SavedRecords {
            sending: self.keys.sending.save(),
            sealed: self.keys.sealer.sequence(),
            receiving: self.keys.receiving.save(),
            opener: self.keys.opener.save(),
            owes_key_update: self.owes_key_update,
            has_said_goodbye: self.has_said_goodbye,
            unsent: self.outbox.bytes(),
            sending_size: self.outbox.size,
            for_app: Zeroizing::new(for_app),
            open: Zeroizing::new(self.inbox.open_bytes().to_vec()),
            unopened: self.inbox.sealed_bytes().to_vec(),
            receiving_size: self.inbox.size,
        }
    }

    /// Goes on with a session whose other end was `is_client`, waited on by the runtime of the calling thread.
    ///
    /// # Errors
    /// If the state contradicts itself, or if the connection cannot be used.
    pub fn restore(
        saved: &SavedRecords,
        peer_is_client: bool,
        tcp: StdTcpStream,
        account: Arc<Account>,
    ) -> Result<Self, NotRestored> {
        let bad_keys = |_| NotRestored::Contradiction("keys that TLS 1.3 does not have");
        let too_much = || NotRestored::Contradiction("more bytes than a buffer holds");
        let sending = TrafficSecret::restore(&saved.sending).map_err(bad_keys)?;
        let receiving = TrafficSecret::restore(&saved.receiving).map_err(bad_keys)?;
        let sealer = Sealer::new(sending.keys_from(saved.sealed).map_err(bad_keys)?);
        let opener = Opener::restore(&saved.opener, peer_is_client, &receiving)?;
        let open = Zeroizing::new([&saved.for_app[..], &saved.open[..]].concat());
        let mut inbox = Inbox::holding(&account, &open, &saved.unopened).ok_or_else(too_much)?;
        if !saved.for_app.is_empty() {
            inbox.pieces.push(0..saved.for_app.len());
            inbox.consume(saved.for_app.len());
        }
        inbox.size = saved.receiving_size;
        let mut outbox = Outbox::holding(&account, &saved.unsent).ok_or_else(too_much)?;
        outbox.size = saved.sending_size;
        Ok(Self {
            tcp: Arc::new(TcpStream::from_std(tcp)?),
            runtime: Handle::current().id(),
            keys: RecordKeys { sealer, opener, sending, receiving },
            owes_key_update: saved.owes_key_update,
            has_said_goodbye: saved.has_said_goodbye,
            account,
            outbox,
            inbox,
        })
    }
}
