//! What policy says about a destination, with few peers and with very many.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use sheath::config::Config;
use sheath::desired::{Destination, Peer};
use sheath::materials::Materials;
use sheath::policy::Policy;

const CONFIG: &str = r#"
trustDomain: example.org
node: n
identity: { ca: { dir: /x } }
workloads:
  - name: web
    select: { cgroup: web }
    spiffeId: spiffe://example.org/web
peers:
  - match: ["192.0.2.1/32:443"]
    spiffeIds: ["spiffe://example.org/db"]
"#;

/// Where the peer of this number is.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + number as u32)
}

/// Every tenth peer is a network, of two lengths; the others are single addresses, half of them with a port.
fn destination(number: usize) -> Destination {
    let (length, port) = match number % 10 {
        0 if number.is_multiple_of(20) => (24, None),
        0 => (28, None),
        other if other % 2 == 0 => (32, Some(8080)),
        _ => (32, None),
    };
    let prefix = Ipv4Net::new(address(number), length).unwrap().trunc();
    Destination { prefix: IpNet::V4(prefix), port }
}

fn policy(peers: usize) -> Policy {
    let mut desired = Config::parse(CONFIG, Path::new("bench.yaml")).unwrap().desired;
    let peer = desired.peers[0].clone();
    let peer_at =
        |number| Peer { destinations: vec![destination(number)], ..Peer::clone(&peer) }.into();
    desired.peers = (0..peers).map(peer_at).collect();
    let mut materials = Materials::default();
    materials.follow(&desired);
    Policy::new(&desired, &materials)
}

fn target_at(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("target_at");
    group.throughput(Throughput::Elements(1));
    for peers in [1, 1_000, 100_000] {
        let policy = policy(peers);
        // Spread over all of them, as connections are; a step that has no factor in common with their number.
        let known: Vec<SocketAddr> =
            (0..1024).map(|i| (address(i * 7919 % peers), 8080).into()).collect();
        let mut next = known.iter().cycle();
        group.bench_function(BenchmarkId::new("a peer", peers), |bencher| {
            bencher.iter(|| policy.target_at(black_box(*next.next().unwrap())).is_ok());
        });
        let nobody = "203.0.113.1:443".parse().unwrap();
        group.bench_function(BenchmarkId::new("nobody", peers), |bencher| {
            bencher.iter(|| policy.target_at(black_box(nobody)).is_err());
        });
    }
    group.finish();
}

criterion_group!(benches, target_at);
criterion_main!(benches);
