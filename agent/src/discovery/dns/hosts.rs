//! The host's own table of names: `/etc/hosts`, hosts(5).

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The text of the file. It is parsed for each lookup, which is rare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(pub String);

impl Hosts {
    /// All addresses of a name, be it a canonical name or an alias.
    pub fn addresses(&self, name: &str) -> BTreeSet<IpAddr> {
        let is_it = |word: &str| word.trim_end_matches('.').eq_ignore_ascii_case(name);
        let of_line = |line: &str| {
            let line = line.split('#').next()?;
            let mut words = line.split_whitespace();
            let address = words.next()?;
            // The zone of a link-local address means nothing in another namespace.
            let address = address.split('%').next()?.parse().ok()?;
            words.any(is_it).then_some(address)
        };
        self.0.lines().filter_map(of_line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_hides_a_name(
            before in "[ -~\u{a0}-\u{ff}\t]{0,60}",
            after in "[ -~\u{a0}-\u{ff}\t\n]{0,60}",
        ) {
            let hosts = Hosts(format!("{before}\n10.9.8.7 name\n{after}"));
            prop_assert!(hosts.addresses("name").contains(&[10, 9, 8, 7].into()));
        }
    }

    #[test]
    fn a_name_is_found_under_all_that_it_is_called() {
        let hosts = Hosts(
            "127.0.0.1 localhost\n10.0.0.1\tdb.example db DB2. # main.example\n\
             nonsense db\n10.0.0.2 other\n  fe80::1%eth0 db\n#10.0.0.9 db\n10.0.0.3 db\n"
                .to_owned(),
        );
        let addresses = |name: &str| -> Vec<String> {
            hosts.addresses(name).iter().map(ToString::to_string).collect()
        };
        assert_eq!(addresses("db"), ["10.0.0.1", "10.0.0.3", "fe80::1"]);
        assert_eq!(addresses("DB.Example"), ["10.0.0.1"]);
        assert_eq!(addresses("db2"), ["10.0.0.1"]);
        assert!(addresses("main.example").is_empty() && addresses("d").is_empty());
    }
}
