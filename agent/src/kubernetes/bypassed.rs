//! Services that whoever runs the cluster bypasses by their names.

use std::fmt;
use std::str::FromStr;

use super::service::ServiceName;
use super::words;

/// A Service, or one of its ports, as the configuration names it: `kube-system/kube-dns`, or `kube-system/kube-dns:53`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BypassedService {
    pub name: ServiceName,
    /// `None` for every port that it has.
    pub port: Option<u16>,
}

/// A text that names no Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` names no Service: write <namespace>/<name>, or <namespace>/<name>:<port>",
    .0.escape_debug()
)]
pub struct NotAServiceName(String);

impl BypassedService {
    /// True if it is about a port of its Service.
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }
}

impl FromStr for BypassedService {
    type Err = NotAServiceName;

    fn from_str(text: &str) -> Result<Self, NotAServiceName> {
        let parsed = || {
            let (name, port) = match text.split_once(':') {
                Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port != 0)?)),
                None => (text, None),
            };
            let (namespace, name) = name.split_once('/')?;
            let name = ServiceName {
                namespace: words::object_name(namespace)?,
                name: words::object_name(name)?,
            };
            Some(Self { name, port })
        };
        parsed().ok_or_else(|| NotAServiceName(text.to_owned()))
    }
}

impl TryFrom<String> for BypassedService {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error: NotAServiceName| error.to_string())
    }
}

impl fmt::Display for BypassedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => self.name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_or_a_port_of_it_is_named() {
        let dns: BypassedService = "kube-system/kube-dns:53".parse().unwrap();
        assert_eq!((dns.to_string().as_str(), dns.port), ("kube-system/kube-dns:53", Some(53)));
        assert!(dns.has(53) && !dns.has(9153));
        let every: BypassedService = "kube-system/kube-dns".parse().unwrap();
        assert!(every.has(53) && every.has(9153));
        for wrong in
            ["", "kube-dns", "a/b/c", "kube-system/", "/x", "a/b:", "a/b:0", "a/b:65536", "A/b"]
        {
            assert!(wrong.parse::<BypassedService>().is_err(), "{wrong}");
        }
    }
}
