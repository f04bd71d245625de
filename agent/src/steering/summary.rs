//! Many prefixes, summed up by fewer that hold them all.

use std::collections::BTreeSet;

use ipnet::IpNet;

/// Longest prefixes of either family, in steps: what is longer is cut short, until there are few enough. Sites route by
/// networks of these sizes, and seldom by smaller ones.
const STEPS: [(u8, u8); 8] =
    [(32, 128), (24, 64), (20, 56), (16, 48), (12, 40), (8, 32), (4, 16), (0, 0)];

/// At most `most` prefixes, but two are always possible. Each given one is behind one of them, and is one of them if there
/// are few.
pub fn sum_up(prefixes: impl Iterator<Item = IpNet>, most: usize) -> Vec<IpNet> {
    let mut all: BTreeSet<IpNet> = prefixes.collect();
    for (v4, v6) in STEPS {
        let cut = |prefix: IpNet| {
            let longest = if prefix.addr().is_ipv4() { v4 } else { v6 };
            let length = prefix.prefix_len().min(longest);
            IpNet::new(prefix.addr(), length).map_or(prefix, |prefix| prefix.trunc())
        };
        if all.len() <= most {
            break;
        }
        all = all.into_iter().map(cut).collect();
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn few_stay_as_they_are_and_many_become_the_networks_they_are_in() {
        let few = networks(&["10.0.0.0/8", "10.0.2.1/32", "fd00::1/128"]);
        assert_eq!(sum_up(few.iter().copied(), 3), few);
        let many =
            (0..100_000_u32).map(|n| IpNet::from(IpAddr::from((0x0a00_0000 + n).to_be_bytes())));
        let wide = networks(&["0.0.0.0/0", "fd00::/8", "fd00:1::5/128"]);
        let summary = sum_up(many.chain(wide), 1024);
        assert_eq!(summary.len(), 100_000_usize.div_ceil(256) + 3);
        assert!(summary.contains(&"10.1.7.0/24".parse().unwrap()));
        assert!(summary.contains(&"0.0.0.0/0".parse().unwrap()));
        assert!(summary.contains(&"fd00:1::/64".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn everything_stays_behind_one_of_them(
            given in prop::collection::vec((any::<IpAddr>(), 0..=128_u8), 0..60), most in 2..10_usize,
        ) {
            let network = |(ip, length): (IpAddr, u8)| {
                IpNet::new(ip, if ip.is_ipv4() { length.min(32) } else { length }).unwrap().trunc()
            };
            let given: Vec<_> = given.into_iter().map(network).collect();
            let summary = sum_up(given.iter().copied(), most);
            prop_assert!(summary.len() <= most);
            for prefix in &given {
                prop_assert!(summary.iter().any(|wide| wide.contains(prefix)), "{}", prefix);
            }
        }
    }
}
