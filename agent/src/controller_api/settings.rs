//! Where the controller is, and by what each side knows the other.

use std::fmt;
use std::path::PathBuf;

use crate::spiffe::SpiffeId;

/// How an agent finds the controller, and how the two prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    pub address: ControllerAddress,
    /// File with the roots of the trust domain in PEM. It is read again for each connection.
    pub roots: PathBuf,
    /// The identity that the controller must prove.
    pub spiffe_id: SpiffeId,
    /// File with the token by which the controller knows this agent. It is read again for each call.
    pub token: PathBuf,
}

/// A host, by its name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerAddress {
    /// IPv6 addresses are without brackets.
    pub host: String,
    pub port: u16,
}

/// A text that is no host and port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not the address and port of the controller; write it like `sheath-controller.sheath-system:15443` or `[fd00::1]:15443`",
    .0.escape_debug()
)]
pub struct NotAnAddress(pub String);

impl TryFrom<String> for ControllerAddress {
    type Error = NotAnAddress;

    fn try_from(text: String) -> Result<Self, NotAnAddress> {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse().ok().filter(|port| *port != 0)?;
            let bare = match host.strip_prefix('[') {
                Some(inner) => inner.strip_suffix(']').filter(|inner| inner.contains(':'))?,
                None => host,
            };
            let is_ipv6 = host.starts_with('[');
            let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
            let is_host = match is_ipv6 {
                true => bare.parse::<std::net::Ipv6Addr>().is_ok(),
                false => !bare.is_empty() && bare.len() <= 253 && bare.bytes().all(allowed),
            };
            is_host.then(|| Self { host: bare.to_owned(), port })
        });
        parsed.ok_or(NotAnAddress(text))
    }
}

impl fmt::Display for ControllerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["sheath-controller.sheath-system:15443", "10.96.0.7:1", "[fd00::1]:15443"] {
            let address = ControllerAddress::try_from(text.to_owned()).unwrap();
            assert_eq!(address.to_string(), text);
        }
        for text in
            ["", ":1", "host", "host:0", "host:65536", "fd00::1:5", "[host]:5", "a b:5", "[::1:5"]
        {
            let error = ControllerAddress::try_from(text.to_owned()).unwrap_err().to_string();
            assert!(error.contains("is not the address and port of the controller"), "{error}");
        }
    }
}
