//! The name servers of the host: `/etc/resolv.conf`, resolv.conf(5).

use std::net::IpAddr;
use std::time::Duration;

/// Defaults and limits of the C library.
const TIMEOUT: u64 = 5;
const LONGEST_TIMEOUT: u64 = 30;
const ATTEMPTS: usize = 2;
const MOST_ATTEMPTS: usize = 5;

/// Name servers and options. Search domains are ignored: names are looked up as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    pub servers: Vec<NameServer>,
    pub timeout: Duration,
    pub attempts: usize,
    pub edns0: bool,
    pub only_tcp: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer {
    pub address: IpAddr,
    /// The interface of a link-local address (RFC 4007, 11).
    pub zone: Option<String>,
}

impl ResolvConf {
    /// `None` without a name server. Invalid lines are ignored, with a warning.
    pub fn parse(text: &str, warnings: &mut Vec<String>) -> Option<Self> {
        let mut parsed = Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(TIMEOUT),
            attempts: ATTEMPTS,
            edns0: false,
            only_tcp: false,
        };
        for (index, line) in text.lines().enumerate() {
            let mut warn = |what: String| warnings.push(format!("line {}: {what}", index + 1));
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(word)) => match NameServer::parse(word) {
                    Some(server) => parsed.servers.push(server),
                    None => warn(format!("`{}` is no address", word.escape_debug())),
                },
                (Some("options"), first) => {
                    first.into_iter().chain(words).for_each(|option| parsed.option(option));
                }
                (None, _) | (Some("domain" | "search" | "sortlist"), _) => {}
                (Some(word), _) => {
                    warn(format!("`{}` is ignored", word.escape_debug()));
                }
            }
        }
        (!parsed.servers.is_empty()).then_some(parsed)
    }

    /// Unknown options are ignored.
    fn option(&mut self, option: &str) {
        match option.split_once(':') {
            Some(("timeout", seconds)) => {
                if let Ok(seconds) = seconds.parse::<u64>() {
                    self.timeout = Duration::from_secs(seconds.clamp(1, LONGEST_TIMEOUT));
                }
            }
            Some(("attempts", attempts)) => {
                if let Ok(attempts) = attempts.parse::<usize>() {
                    self.attempts = attempts.clamp(1, MOST_ATTEMPTS);
                }
            }
            _ => match option {
                "edns0" => self.edns0 = true,
                "use-vc" => self.only_tcp = true,
                _ => {}
            },
        }
    }
}

impl NameServer {
    fn parse(word: &str) -> Option<Self> {
        let (address, zone) = match word.split_once('%') {
            Some((_, "")) => return None,
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (word, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let needs_zone = match address {
            IpAddr::V4(_) if zone.is_some() => return None,
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        Some(Self { address, zone: zone.filter(|_| needs_zone) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_hides_a_name_server(
            before in "[ -~\u{a0}-\u{ff}\t]{0,60}",
            after in "[ -~\u{a0}-\u{ff}\t\n]{0,60}",
        ) {
            let text = format!("{before}\nnameserver 10.9.8.7\n{after}");
            let (parsed, _) = parse(&text);
            prop_assert!(parsed.unwrap().servers.contains(&server("10.9.8.7", None)));
        }
    }

    fn parse(text: &str) -> (Option<ResolvConf>, Vec<String>) {
        let mut warnings = Vec::new();
        let parsed = ResolvConf::parse(text, &mut warnings);
        (parsed, warnings)
    }

    fn server(address: &str, zone: Option<&str>) -> NameServer {
        NameServer { address: address.parse().unwrap(), zone: zone.map(str::to_owned) }
    }

    #[test]
    fn a_line_that_makes_no_sense_is_ignored_alone() {
        let text = "# ours\n; too\nsearch -- a..b *.example %$\nnameserver 10.0.0.256\n\
            nameserver 10.0.0.53 # the first\nnameserver\ndomain ..\nnonsense \u{1b}\n\
            nameserver fe80::1%eth0\n\tnameserver fe80::1%\nnameserver 10.0.0.1%eth0\n\
            nameserver 2001:db8::53%eth0\noptions timeout:x attempts:3 use-vc rotate timeout:99\n";
        let (parsed, warnings) = parse(text);
        let parsed = parsed.unwrap();
        let servers = [
            server("10.0.0.53", None),
            server("fe80::1", Some("eth0")),
            // There the interface means nothing.
            server("2001:db8::53", None),
        ];
        assert_eq!(parsed.servers, servers);
        assert_eq!((parsed.attempts, parsed.timeout), (3, Duration::from_secs(30)));
        assert!(parsed.only_tcp && !parsed.edns0);
        let lines: Vec<_> = warnings.iter().map(|warning| &warning[..8]).collect();
        assert_eq!(lines, ["line 4: ", "line 6: ", "line 8: ", "line 10:", "line 11:"]);
        assert!(!warnings.join("").contains(char::is_control));
        assert_eq!(parse("search example.org\n").0, None);
    }
}
