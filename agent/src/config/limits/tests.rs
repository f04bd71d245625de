use std::sync::Arc;

use ipnet::Ipv4Net;

use crate::config::tests::{EXAMPLE, error_with, parse};
use crate::desired::Destination;

#[test]
fn what_is_beyond_a_limit_is_refused_with_the_limit_and_the_count() {
    let many =
        |count: usize, make: &dyn Fn(usize) -> String| -> String { (0..count).map(make).collect() };
    let with_peers = |count: u32, length: u8| {
        let mut desired = parse(EXAMPLE).unwrap().desired;
        let network = |n: u32| Ipv4Net::new((0x0a80_0000 + (n << (32 - length))).into(), length);
        let destination = |n| Destination { prefix: network(n).unwrap().into(), port: None };
        Arc::make_mut(&mut desired.peers[0]).destinations = (0..count).map(destination).collect();
        super::check(&desired).unwrap_err().to_string()
    };
    // The two bypasses of the example count as well.
    let error = with_peers(500_000, 32);
    assert!(error.contains("500002 single addresses in peers"), "{error}");
    assert!(error.contains("500000 are the most"), "{error}");
    let error = with_peers(131_073, 31);
    assert!(error.contains("131073 address prefixes in peers"), "{error}");
    assert!(error.contains("131072 are the most"), "{error}");

    let workload = |ports: &str, name: usize| {
        format!(
            "  - name: w{name}\n    select: {{ cgroup: /w{name} }}\n    spiffeId: spiffe://example.org/w\n    \
             inbound: {{ mode: strict, allow: [\"spiffe://example.org/a\"], ports: [{ports}] }}\n"
        )
    };
    let start = EXAMPLE.find("peers:").unwrap();
    let with =
        |workloads: &str| parse(&format!("{}{workloads}{}", &EXAMPLE[..start], &EXAMPLE[start..]));
    assert!(with(&many(15_999, &|name| workload("80", name))).is_ok());
    let error = with(&many(16_000, &|name| workload("80", name))).unwrap_err();
    assert!(error.contains("16001 workloads; 16000 are the most"), "{error}");
    let every = many(65_535, &|port| format!("{},", port + 1));
    let error = with(&many(2, &|name| workload(&every, name))).unwrap_err();
    assert!(error.contains("131071 ports in inbound.ports"), "{error}");

    let names = many(7_813, &|n| format!("\"a{n}.example.com:443\","));
    let external = format!(
        "externalPeers:\n  - name: many\n    match: [{names}]\n    trust: {{ system: true }}\n    expect: {{ dnsNames: [a] }}\n"
    );
    let error = parse(&format!("{EXAMPLE}{external}")).unwrap_err();
    assert!(error.contains("each DNS name counts for 64; 500000 are the most"), "{error}");
}

#[test]
fn what_could_not_be_made_or_shown_is_refused() {
    let long = "x".repeat(100);
    let run_dir = format!("trustDomain: example.org\nrunDir: /{long}");
    let error = error_with("trustDomain: example.org", &run_dir);
    assert!(error.contains("path of 123 bytes; 107 are the most"), "{error}");
    let spire = format!("spire: {{ socket: /{long}/socket }}");
    let error = error_with("ca: { dir: /var/lib/sheath/ca }", &spire);
    assert!(error.contains("identity.spire.socket: the socket"), "{error}");
    for (from, to) in [("name: web", "name: \"we\\eb\""), ("node: node-a", "node: \"a\\nb\"")] {
        let error = error_with(from, to);
        assert!(error.contains("control characters"), "{error}");
    }
}
