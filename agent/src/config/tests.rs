use super::*;
use crate::desired::{
    CertificateChoice, CgroupSelector, Existing, Place, PublishedPort, TrustChoice,
};
use crate::identity::{
    BundleFile, CaSettings, IdentityFiles, SourceSettings, SpireSelector, SpireSettings,
};
use crate::x509::KeyPairFiles;
use proptest::prelude::*;
use sheath_common::workload::{InboundMode, OutboundMode};

pub(super) const EXAMPLE: &str = r#"
trustDomain: example.org
node: node-a
identity: { ca: { dir: /var/lib/sheath/ca } }
capture: { cgroup: auto }
workloads:
  - name: web
    select: { cgroup: "demo.slice/web*" }
    spiffeId: spiffe://example.org/ns/demo/sa/web
    inbound:  { mode: strict, ports: [8080], allow: ["spiffe://example.org/ns/demo/sa/client"] }
    outbound: { mode: require, bypass: ["10.96.0.10/32", "169.254.169.254/32:80"] }
peers:
  - match: ["10.0.2.0/24"]
    spiffeIds: ["spiffe://example.org/ns/demo/sa/web"]
"#;

pub(super) fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("sheath.yaml")).map_err(|error| error.to_string())
}

pub(super) fn error_with(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from}");
    parse(&EXAMPLE.replace(from, to)).unwrap_err()
}

#[test]
fn the_documented_example_is_valid() {
    let mut config = parse(EXAMPLE).unwrap();
    config.desired.number([7]);
    let web = &config.desired.workloads[0];
    assert_eq!(config.instance.name, "default");
    assert_eq!(web.cgroup.pattern(), Some("/demo.slice/web*"));
    assert_eq!(web.origin.to_string(), "workloads[web]");
    assert_eq!(web.inbound.mode, InboundMode::Strict);
    assert_eq!(web.inbound.ports, [8080]);
    assert_eq!(web.outbound.mode, OutboundMode::Require);
    assert_eq!(web.outbound.bypass[1].destination.port, Some(80));
    assert_eq!(web.existing, Existing::Keep);
    assert!(!web.kernel_view().inbound_every_port());
    assert_eq!(web.kernel_view().id, 7);
}

#[test]
fn a_cgroup_that_exists_can_be_selected_by_its_id() {
    let text = EXAMPLE.replace("cgroup: \"demo.slice/web*\"", "cgroupId: 4294967297");
    let web = &parse(&text).unwrap().desired.workloads[0];
    assert_eq!(web.cgroup, CgroupSelector::Id(4_294_967_297));
    let error = error_with("cgroup: \"demo.slice/web*\"", "cgroup: web, cgroupId: 7");
    assert!(error.contains("exactly one of `cgroup`, `cgroupId`, `systemdUnit`"), "{error}");
    assert!(error_with("cgroup: \"demo.slice/web*\"", "cgroupId: 0").contains("sheath.yaml:8"));
}

#[test]
fn names_of_workloads_have_a_limit() {
    let long = "x".repeat(385);
    let error = error_with("name: web", &format!("name: {long}"));
    assert!(error.contains("longer than 384 bytes"), "{error}");
    assert!(parse(&EXAMPLE.replace("name: web", &format!("name: {}", &long[1..]))).is_ok());
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_the_nearest_valid_key() {
    let error = error_with("    spiffeId:", "    spifeId:");
    assert_eq!(error, "sheath.yaml:9: unknown key `spifeId`, did you mean `spiffeId`?");
    let error = error_with("mode: strict, ports", "mode: strict, port");
    assert_eq!(error, "sheath.yaml:10: unknown key `port`, did you mean `ports`?");
}

#[test]
fn a_bad_value_is_named_with_its_line() {
    let error = error_with("[\"10.0.2.0/24\"]", "[\"10.0.2.1/24\"]");
    assert!(error.starts_with("sheath.yaml:13: "), "{error}");
    assert!(error.contains("`10.0.2.1/24` has host bits set"), "{error}");
    let error = error_with("mode: strict", "mode: strickt");
    assert!(error.starts_with("sheath.yaml:10: "), "{error}");
}

#[test]
fn an_error_is_one_line_whatever_the_file_holds() {
    let strange = r"a\nb\e[2J";
    for (from, to) in [
        ("mode: strict", format!("mode: \"{strange}\"")),
        ("[\"10.0.2.0/24\"]", format!("[\"{strange}\"]")),
        ("demo.slice/web*", format!("{strange}/..")),
        ("node: node-a", format!("node: node-a\n\"{strange}\": 1")),
    ] {
        let error = error_with(from, &to);
        assert!(!error.contains(char::is_control), "{error:?}");
    }
    let error = error_with("demo.slice/web*", &format!("{strange}/.."));
    assert!(error.contains(r"`/a\nb\u{1b}[2J/..`"), "{error}");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    for (from, to, expected) in [
        ("trustDomain: example.org", "trustDomain: other.org", "not in the trust domain"),
        ("allow: [\"spiffe://example.org/ns/demo/sa/client\"]", "allow: []", "names nobody"),
        ("ports: [8080]", "ports: []", "inbound.ports"),
        ("ports: [8080]", "ports: [8080], publishedPorts: [\"80\"]", "no pair of ports"),
        ("ports: [8080]", "ports: [8080], publishedPorts: [\"0:8080\"]", "no pair of ports"),
        ("ports: [8080]", "ports: [8080], publishedPorts: [\"8080:8080\"]", "translates nothing"),
        ("ports: [8080]", "ports: [8080], publishedPorts: [\"80:81\"]", "not among inbound.ports"),
        ("ports: [8080]", "ports: [8080], addresses: [\"0.0.0.0\"]", "leave the key out"),
        ("ports: [8080]", "addresses: [10.0.2.1]", "needs inbound.ports"),
        ("ports: [8080]", "ports: [8080], activator: /", "inbound.activator"),
        ("ports: [8080]", "ports: [8080], activator: ../init.scope", "inbound.activator"),
        ("{ cgroup: \"demo.slice/web*\" }", "{}", "exactly one of"),
        ("demo.slice/web*", "demo.slice//web", "empty or dotted"),
        ("cgroup: auto", "cgroup: other.slice", "not below capture.cgroup"),
        ("node: node-a", "node: \"\"", "no node: write the name of this node"),
    ] {
        let error = error_with(from, to);
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn published_ports_are_written_as_docker_writes_them() {
    let text = EXAMPLE.replace("ports: [8080]", "ports: [8080], publishedPorts: [\"80:8080\"]");
    let inbound = &parse(&text).unwrap().desired.workloads[0].inbound;
    assert_eq!(inbound.published_ports, [PublishedPort { published: 80, port: 8080 }]);
}

#[test]
fn two_workloads_of_one_name_are_refused() {
    let start = EXAMPLE.find("  - name: web").unwrap();
    let end = EXAMPLE.find("peers:").unwrap();
    let twice = format!("{}{}", &EXAMPLE[..end], &EXAMPLE[start..]);
    assert!(parse(&twice).unwrap_err().contains("two workloads"));
}

#[test]
fn systemd_units_are_found_where_systemd_puts_them() {
    for (unit, cgroup) in [
        ("nginx.service", "/system.slice/nginx.service"),
        ("pg@main.service", "/system.slice/system-pg.slice/pg@main.service"),
        ("a-b@1.service", "/system.slice/system-a\\x2db.slice/a-b@1.service"),
    ] {
        let text = EXAMPLE.replace("cgroup: \"demo.slice/web*\"", &format!("systemdUnit: {unit}"));
        assert_eq!(parse(&text).unwrap().desired.workloads[0].cgroup.pattern(), Some(cgroup));
    }
    assert!(error_with("cgroup: \"demo.slice/web*\"", "systemdUnit: nginx").contains(".service"));
}

#[test]
fn instance_names_cannot_leave_their_directory() {
    assert!(Instance::new("../x", Path::new("/run/sheath")).is_err());
    assert!(Instance::new("", Path::new("/run/sheath")).is_err());
    let instance = Instance::new("a", Path::new("/run/sheath")).unwrap();
    assert_eq!(instance.admin_socket(), Path::new("/run/sheath/a/admin.sock"));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[ -~\n]{0,300}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_damage_to_the_example_makes_the_parser_panic(at in 0..EXAMPLE.len(), byte in " -~") {
        let mut text = EXAMPLE.to_owned();
        text.replace_range(at..at + 1, &byte);
        let _ = parse(&text);
    }
}

/// Everything that can be said about identity and trust.
const TRUST: &str = r#"
trustDomain: example.org
node: node-a
identity:
  source: spire
  ca: { dir: /ca }
  files: { dir: /svids }
  spire: { socket: /run/spire/admin.sock }
trustDomains:
  - { name: partner.org, bundle: /partner.pem, crl: { files: [/partner.crl], unknown: allow } }
tlsContexts:
  - { name: billing-client, files: { certificate: /b.crt, key: /b.key } }
workloads:
  - { name: by-pid, select: { cgroup: a } }
  - { name: by-selectors, select: { cgroup: b }, identity: { spire: { selectors: ["unix:uid:1000"] } } }
  - { name: by-files, select: { cgroup: c }, identity: { files: { certificate: /c, key: /k, bundle: /b } } }
  - { name: by-ca, select: { cgroup: d }, spiffeId: "spiffe://example.org/d", identity: { ca: { svidTtl: 10m } } }
  - name: web
    select: { cgroup: e }
    inbound:
      mode: permissive
      allowPins: [{ certificate: /peer.pem }]
      tls:
        ports: [8443]
        certificate: billing-client
        trust: { bundle: /clients.pem }
        expect: { dnsNames: [Client.example.com] }
        alpn: [h2]
        minVersion: "1.2"
        maxVersion: "1.3"
        cipherSuites: [ECDHE-ECDSA-AES128-GCM-SHA256]
        curves: [P-256]
peers:
  - { match: [10.0.0.0/8], spiffeIds: ["spiffe://partner.org/web"], pins: [{ spkiSha256: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" }] }
externalPeers:
  - { name: billing, match: ["10.9.0.7:443", "billing.example.com:443"], certificate: none, trust: { system: true }, expect: { dnsNames: [billing.example.com] }, connectTimeout: 250ms }
  - { name: partner, match: [10.8.0.1], trust: { trustDomain: partner.org }, expect: { spiffeIds: ["spiffe://partner.org/db"] } }
dns: { servers: ["10.0.1.1:53"] }
sessions: { expiredPeer: close }
"#;

#[test]
fn all_of_identity_and_trust_can_be_said() {
    let config = parse(TRUST).unwrap();
    let (socket, ten_minutes) = ("/run/spire/admin.sock".into(), Duration::from_secs(600));
    let spire = SpireSettings { socket, selectors: Vec::new() };
    let selector = SpireSelector { kind: "unix".to_owned(), value: "uid:1000".to_owned() };
    let by_selector = SpireSettings { selectors: vec![selector], ..spire.clone() };
    let by_files = IdentityFiles {
        pair: KeyPairFiles {
            certificate: "/c".into(),
            key: "/k".into(),
            allow_readable_key: false,
        },
        bundle: Some(BundleFile { path: "/b".into(), required: true }),
    };
    let trust_domain = config.trust_domain.clone();
    let by_ca = CaSettings { dir: "/ca".into(), trust_domain, svid_ttl: ten_minutes };
    let expected: [Arc<dyn SourceSettings>; 4] =
        [Arc::new(spire), Arc::new(by_selector), Arc::new(by_files), Arc::new(by_ca)];
    for (workload, expected) in config.desired.workloads.iter().zip(expected) {
        assert!(*workload.source == *expected, "{workload:?}");
    }
    assert_eq!(config.expired_peer, ExpiredPeer::Close);
    let inbound = config.desired.workloads[4].inbound.tls.as_ref().unwrap();
    assert_eq!(inbound.tls.certificate, CertificateChoice::Context("billing-client".to_owned()));
    assert_eq!(inbound.tls.profile.versions.len(), 2);
    let billing = &config.desired.external_peers[0];
    assert_eq!(billing.tls.certificate, CertificateChoice::Nothing);
    assert_eq!(billing.connect_timeout, Some(Duration::from_millis(250)));
    assert!(matches!(&billing.places[1], Place::Named { port: Some(443), .. }));
    assert!(matches!(&config.desired.external_peers[1].tls.trust, Some(TrustChoice::Spiffe(_))));
}

#[test]
fn what_would_believe_too_much_or_nobody_is_refused() {
    let by_pid = "{ name: by-pid, select: { cgroup: a } }";
    let partner =
        "trust: { trustDomain: partner.org }, expect: { spiffeIds: [\"spiffe://partner.org/db\"] }";
    for (from, to, expected) in [
        ("source: spire", "source: vault", "spire"),
        ("  source: spire\n", "", "identity.source must name the default one"),
        ("  spire: { socket: /run/spire/admin.sock }\n", "", "identity.spire is not set up"),
        (by_pid, "{ name: x, select: { cgroup: a }, identity: {} }", "exactly one of"),
        (by_pid, "{ name: x, select: { cgroup: a }, identity: { ca: {} } }", "has no spiffeId"),
        ("\"unix:uid:1000\"", "uid", "must look like"),
        ("svidTtl: 10m", "svidTtl: 10s", "shorter than a minute"),
        (
            "certificate: billing-client",
            "certificate: other",
            "nor the name of an entry of tlsContexts",
        ),
        ("certificate: billing-client", "certificate: none", "has to present a certificate"),
        ("name: billing-client", "name: svid", "cannot be the name"),
        ("expect: { dnsNames: [Client.example.com] }", "expect: {}", "merely valid is not enough"),
        ("trust: { system: true }, ", "", "expect needs trust"),
        (
            "trust: { system: true }, expect: { dnsNames: [billing.example.com] }, ",
            "",
            "it needs trust and expect, or pins",
        ),
        ("trust: { system: true }", "trust: { system: true, bundle: /x }", "exactly one of"),
        ("trust: { system: true }", "trust: {}", "exactly one of"),
        (
            partner,
            "trust: { system: true }, expect: { spiffeIds: [\"spiffe://partner.org/db\"] }",
            "needs trust.trustDomain",
        ),
        (partner, "trust: { trustDomain: partner.org }, expect: { uris: [x] }", "spiffeIds alone"),
        (
            partner,
            "trust: { trustDomain: partner.org }, expect: { spiffeIds: [\"spiffe://other.org/db\"] }",
            "not of the trust domain",
        ),
        ("{ certificate: /peer.pem }", "{}", "exactly one of"),
        ("47DEQpj8HBSa", "47DE", "not a SHA-256"),
        ("minVersion: \"1.2\"", "minVersion: \"1.1\"", "neither `1.2` nor `1.3`"),
        ("curves: [P-256]", "curves: [P-257]", "unknown or unsafe"),
        ("billing.example.com:443\"", "billing_.300:443\"", "nor a DNS name"),
        (
            "bundle: /partner.pem, crl: { files: [/partner.crl], unknown: allow }",
            "",
            "needs a bundle, a crl",
        ),
        ("files: [/partner.crl]", "files: []", "crl.files is empty"),
        ("name: partner,", "name: billing,", "two external peers"),
    ] {
        assert!(TRUST.contains(from), "{from}");
        let error = parse(&TRUST.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(expected), "{to}: {error}");
    }
    // Without a source that may federate, IDs of unknown domains can never be believed.
    let error = error_with(
        "spiffeIds: [\"spiffe://example.org/ns/demo/sa/web\"]",
        "spiffeIds: [\"spiffe://other.org/web\"]",
    );
    assert!(error.contains("for which trustDomains has no entry"), "{error}");
}

#[test]
fn what_takes_a_restart_is_named_at_a_reload() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.check_reload(&config.clone()), Ok(()));
    for (from, to, key) in [
        ("node: node-a", "node: node-b", "node"),
        ("cgroup: auto", "cgroup: demo.slice", "capture"),
    ] {
        let new = parse(&EXAMPLE.replace(from, to)).unwrap();
        assert!(config.check_reload(&new).unwrap_err().0 == key);
    }
    let more = parse(&EXAMPLE.replace("10.0.2.0/24", "10.0.3.0/24")).unwrap();
    assert_eq!(config.check_reload(&more), Ok(()));
}

#[test]
fn more_peers_can_be_configured_than_a_yaml_reader_allows_by_itself() {
    let peer = |number: u32| {
        let address = std::net::Ipv4Addr::from(0x0a80_0000 + number);
        format!(
            "  - match: [\"{address}:8443\"]\n    spiffeIds: [\"spiffe://example.org/ns/a/sa/{number}\"]\n"
        )
    };
    let peers: String = (0..40_000).map(peer).collect();
    let config = parse(&format!("{EXAMPLE}{peers}")).unwrap();
    assert_eq!(config.desired.peers.len(), 40_001);
}

#[test]
fn limits_and_timers_are_read() {
    let config = parse(EXAMPLE).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(config.timeouts.idle.idle, Some(day));
    assert_eq!(config.timeouts.idle.dead_peer, Some(Duration::from_secs(120)));
    assert_eq!((config.limits.flows, config.limits.buffers), (None, 64 << 20));
    assert_eq!(config.reuse.per_workload, 256);
    let text = format!(
        "{EXAMPLE}timeouts: {{ idle: never, halfClosed: 5m, deadPeer: 30s }}\nsessions: {{ reuse: {{ perWorkload: 0 }} }}\n\
         limits: {{ flows: 10, handshakesPerSecond: 5, buffers: 512KiB }}\n"
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.timeouts.idle.idle, None);
    assert_eq!(config.timeouts.idle.half_closed, Some(Duration::from_secs(300)));
    assert_eq!(config.timeouts.idle.dead_peer, Some(Duration::from_secs(30)));
    assert_eq!(config.reuse.per_workload, 0);
    let limits = Limits { flows: Some(10), handshakes_per_second: 5, buffers: 512 << 10 };
    assert_eq!(config.limits, limits);
    for wrong in ["flows: 0", "handshakesPerSecond: 0", "buffers: lots", "buffers: 99999999999GiB"]
    {
        assert!(parse(&format!("{EXAMPLE}limits: {{ {wrong} }}\n")).is_err(), "{wrong}");
    }
}

#[test]
fn a_peer_that_could_never_be_protected_is_refused_with_the_reason() {
    for (address, reason) in [
        ("127.0.0.1:80", "`127.0.0.1/32:80` is loopback"),
        ("[::1]:80", "`[::1/128]:80` is loopback"),
        ("0.0.0.0", "stay on the machine"),
        ("224.0.0.0/8", "is multicast"),
        ("fe80::1", "is link-local"),
    ] {
        let error = error_with("[\"10.0.2.0/24\"]", &format!("[\"10.0.3.0/24\", \"{address}\"]"));
        assert!(error.contains(reason) && error.contains("peers[0]"), "{address}: {error}");
    }
    let external = "externalPeers:\n  - name: x\n    match: [\"127.0.0.1:443\"]\n    trust: { system: true }\n    \
                    expect: { dnsNames: [a] }\n";
    let error = parse(&format!("{EXAMPLE}{external}")).unwrap_err();
    assert!(error.contains("external peer `x`") && error.contains("is loopback"), "{error}");
    for name in ["localhost", "db.localhost", "LOCALHOST."] {
        let external = external.replace("127.0.0.1:443", name);
        let error = parse(&format!("{EXAMPLE}{external}")).unwrap_err();
        assert!(error.contains("is this host itself"), "{name}: {error}");
    }
}
