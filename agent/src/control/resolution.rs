//! Why a DNS name does not resolve, in words of ours.

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;

/// What went wrong, and where to look next.
#[must_use]
pub fn reason(error: &NetError) -> String {
    tracing::debug!(%error, "name resolution");
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => answer(none.response_code),
        NetError::Dns(DnsError::ResponseCode(code)) => answer(*code),
        NetError::Timeout => "no name server answers in time".to_owned(),
        NetError::NoConnections => "no name server can be reached, or none is set up".to_owned(),
        NetError::Busy => "there are too many questions at once".to_owned(),
        NetError::Io(error) => format!("no name server can be reached: {error}"),
        _ => "the answer of a name server, or the list of them (/etc/resolv.conf), cannot be read"
            .to_owned(),
    }
}

fn answer(code: ResponseCode) -> String {
    let why = match code {
        ResponseCode::NXDomain => return "there is no such name (NXDOMAIN)".to_owned(),
        ResponseCode::NoError => return "the name is there, but has no address".to_owned(),
        ResponseCode::ServFail => "SERVFAIL: it could not ask those who know",
        ResponseCode::Refused => "REFUSED: it does not answer this host",
        ResponseCode::FormErr => "FORMERR: it did not understand the question",
        ResponseCode::NotImp => "NOTIMP: it does not know this kind of question",
        code => return format!("the name server says no (code {})", u16::from(code)),
    };
    format!("the name server says {why}")
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
            let said = reason(&error);
            assert!(said.contains(expected), "{said}");
        }
    }
}
