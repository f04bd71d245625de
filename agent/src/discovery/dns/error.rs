//! Why a DNS name does not resolve.

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;

use super::system::NoServers;

/// The cause, and where to look next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolutionError {
    #[error("there is no such name (NXDOMAIN)")]
    NoSuchName,
    #[error("the name exists, but has no address")]
    NoAddress,
    #[error("the name server says {0}")]
    Failure(&'static str),
    #[error("the name server refuses to answer (code {0})")]
    Code(u16),
    #[error("no name server answers in time")]
    Timeout,
    #[error("no name server can be reached, or none is set up")]
    NoConnection,
    #[error("there are too many questions at once")]
    Busy,
    #[error("no name server can be reached: {0}")]
    Unreachable(String),
    #[error("the answer of a name server, or the list of them (/etc/resolv.conf), cannot be read")]
    Unreadable,
    #[error(transparent)]
    NoServers(#[from] NoServers),
    #[error("no resolver can be made: {0}")]
    NoResolver(String),
}

impl From<NetError> for ResolutionError {
    fn from(error: NetError) -> Self {
        tracing::debug!(%error, "name resolution");
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => Self::of_answer(none.response_code),
            NetError::Dns(DnsError::ResponseCode(code)) => Self::of_answer(code),
            NetError::Timeout => Self::Timeout,
            NetError::NoConnections => Self::NoConnection,
            NetError::Busy => Self::Busy,
            NetError::Io(error) => Self::Unreachable(error.to_string()),
            _ => Self::Unreadable,
        }
    }
}

impl ResolutionError {
    fn of_answer(code: ResponseCode) -> Self {
        match code {
            ResponseCode::NXDomain => Self::NoSuchName,
            ResponseCode::NoError => Self::NoAddress,
            ResponseCode::ServFail => Self::Failure("SERVFAIL: it could not get an answer itself"),
            ResponseCode::Refused => Self::Failure("REFUSED: it does not answer this host"),
            ResponseCode::FormErr => Self::Failure("FORMERR: it did not understand the question"),
            ResponseCode::NotImp => Self::Failure("NOTIMP: it does not know this kind of question"),
            code => Self::Code(code.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_resolver_says_is_told_by_the_names_of_the_standard() {
        for (error, expected) in [
            (NetError::from(DnsError::ResponseCode(ResponseCode::ServFail)), "SERVFAIL"),
            (NetError::from(DnsError::ResponseCode(ResponseCode::Refused)), "REFUSED"),
            (NetError::from(DnsError::ResponseCode(ResponseCode::NXDomain)), "no such name"),
            (NetError::Timeout, "in time"),
            (NetError::NoConnections, "none is set up"),
            (NetError::Message("NoConnections: internal"), "/etc/resolv.conf"),
        ] {
            let said = ResolutionError::from(error).to_string();
            assert!(said.contains(expected), "{said}");
        }
    }
}
