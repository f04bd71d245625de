//! Real programs that speak TLS themselves. All of them are told the same few things, in the words of
//! this module; each file translates them for one program.
//!
//! A *terminating* program listens with TLS and forwards plaintext; an *originating* one listens for
//! plaintext and forwards it with TLS.

pub mod dnsmasq;
pub mod envoy;
pub mod nginx;
pub mod openssl;
pub mod pki;
mod program;
mod scenarios;
pub mod scene;
pub mod stunnel;
pub mod talk;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ca::PemFiles;
use crate::names;
use crate::place::Place;

pub use program::Program;
pub use scenarios::{Heard, Start};

/// Where a program runs, where it listens, and where it forwards to.
pub struct Route {
    pub place: Place,
    pub listen: SocketAddr,
    pub forward: SocketAddr,
    /// For configuration and logs; of this route alone.
    pub dir: PathBuf,
}

impl Route {
    /// With a new directory in `dir`.
    pub fn new(place: &Place, listen: SocketAddr, forward: SocketAddr, dir: &Path) -> Self {
        let dir = dir.join(names::unique());
        std::fs::create_dir_all(&dir).expect("the program's directory");
        Self { place: place.clone(), listen, forward, dir }
    }

    /// Starts a program of this route. Returns when it listens.
    #[track_caller]
    fn start(&self, name: &'static str, command: &mut Command) -> Program {
        Program::start(name, &self.place, &self.dir, command, self.listen.port())
    }
}

/// How a program speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate it shows.
    pub own: Option<PemFiles>,
    /// What the peer's certificate must chain to. Without, none is asked for, and none is looked at.
    pub trust: Option<PathBuf>,
    pub versions: Versions,
    /// ALPN protocols it offers or selects from.
    pub alpn: Vec<String>,
    /// Cipher suites of TLS 1.2, by OpenSSL's names; empty: the program's own choice.
    pub ciphers: Vec<String>,
    /// Groups for the key agreement; empty: the program's own choice.
    pub curves: Vec<String>,
}

/// TLS versions a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    Tls12,
    Tls13,
}

impl Tls {
    /// Mutual TLS 1.3.
    pub fn mutual(own: PemFiles, trust: PathBuf) -> Self {
        Self { trust: Some(trust), ..Self::one_way(own) }
    }

    /// TLS 1.3 that shows a certificate and asks for none.
    pub fn one_way(own: PemFiles) -> Self {
        Self {
            own: Some(own),
            trust: None,
            versions: Versions::Tls13,
            alpn: Vec::new(),
            ciphers: Vec::new(),
            curves: Vec::new(),
        }
    }

    #[must_use]
    pub fn versions(self, versions: Versions) -> Self {
        Self { versions, ..self }
    }

    #[must_use]
    pub fn alpn(self, names: &[&str]) -> Self {
        Self { alpn: strings(names), ..self }
    }

    #[must_use]
    pub fn ciphers(self, names: &[&str]) -> Self {
        Self { ciphers: strings(names), ..self }
    }

    #[must_use]
    pub fn curves(self, names: &[&str]) -> Self {
        Self { curves: strings(names), ..self }
    }

    #[must_use]
    pub fn trusting(self, trust: PathBuf) -> Self {
        Self { trust: Some(trust), ..self }
    }
}

impl Versions {
    /// As the wire has it.
    pub fn number(self) -> u16 {
        match self {
            Self::Tls12 => 0x0303,
            Self::Tls13 => 0x0304,
        }
    }

    /// As the access log has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
