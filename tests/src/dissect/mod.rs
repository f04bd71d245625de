//! Reading what the tap recorded: frames, TCP streams, TLS records.

pub mod packet;
pub mod recording;
pub mod stream;
pub mod tls;
