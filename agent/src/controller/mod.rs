//! `sheath controller`: the part of Sheath that is there once in a cluster. It has the CA, and says who pods are.
//!
//! It needs no privileges and writes no files. Several replicas run, and [one leads](leader): it does everything, and the others name
//! it to whoever asks them. Every [caller](caller) is an agent that has proved on which node it is.

mod authority;
mod caller;
mod connection;
mod counters;
pub mod csr;
pub mod directory;
mod leader;
mod pages;
mod pods;
mod presence;
mod rates;
mod readiness;
mod run;
mod server;
mod settings;
mod signing;
mod tokens;
mod troubles;
mod watches;

pub use caller::Caller;
pub use leader::Leadership;
pub use run::{RunError, run};
pub use settings::{Settings, SettingsError};
