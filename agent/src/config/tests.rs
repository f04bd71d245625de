use super::*;
use proptest::prelude::*;

const EXAMPLE: &str = r#"
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

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("sheath.yaml")).map_err(|error| error.to_string())
}

fn error_with(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from}");
    parse(&EXAMPLE.replace(from, to)).unwrap_err()
}

#[test]
fn the_documented_example_is_valid() {
    let config = parse(EXAMPLE).unwrap();
    let web = &config.workloads[0];
    assert_eq!(config.instance.name, "default");
    assert_eq!(web.cgroup, "/demo.slice/web*");
    assert_eq!(web.inbound.mode, InboundMode::Strict);
    assert_eq!(web.inbound.ports, [8080]);
    assert_eq!(web.outbound.mode, OutboundMode::Require);
    assert_eq!(web.outbound.bypass[1].port, Some(80));
    assert_eq!(web.existing, Existing::Keep);
    assert!(!web.kernel_view().inbound_every_port());
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
        ("{ cgroup: \"demo.slice/web*\" }", "{}", "exactly one of"),
        ("demo.slice/web*", "demo.slice//web", "empty or dotted"),
        ("cgroup: auto", "cgroup: other.slice", "not below capture.cgroup"),
        ("node: node-a", "node: \"\"", "node is empty"),
    ] {
        let error = error_with(from, to);
        assert!(error.contains(expected), "{to}: {error}");
    }
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
        assert_eq!(parse(&text).unwrap().workloads[0].cgroup, cgroup);
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
    let source = |index: usize| &config.workloads[index].source;
    assert!(matches!(source(0), SourceConfig::Spire { selectors, .. } if selectors.is_empty()));
    assert!(
        matches!(source(1), SourceConfig::Spire { selectors, .. } if selectors[0].kind == "unix" && selectors[0].value == "uid:1000")
    );
    assert!(matches!(source(2), SourceConfig::Files(files) if files.bundle.is_some()));
    let ten_minutes = Duration::from_secs(600);
    assert!(matches!(source(3), SourceConfig::Ca { svid_ttl, .. } if *svid_ttl == ten_minutes));
    assert_eq!(config.expired_peer, ExpiredPeer::Close);
    let inbound = config.workloads[4].inbound.tls.as_ref().unwrap();
    assert_eq!(inbound.tls.certificate, CertificateChoice::Context("billing-client".to_owned()));
    assert_eq!(inbound.tls.profile.versions.len(), 2);
    let billing = &config.external_peers[0];
    assert_eq!(billing.tls.certificate, CertificateChoice::Nothing);
    assert_eq!(billing.connect_timeout, Some(Duration::from_millis(250)));
    assert!(matches!(&billing.places[1], Place::Named { port: Some(443), .. }));
    assert!(matches!(&config.external_peers[1].tls.trust, Some(TrustChoice::Spiffe(_))));
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
        ("certificate: billing-client", "certificate: none", "has to show a certificate"),
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
        assert!(config.check_reload(&new).unwrap_err().starts_with(key));
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
    assert_eq!(config.peers.len(), 40_001);
}

#[test]
fn limits_and_timers_are_read() {
    let config = parse(EXAMPLE).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(config.timeouts.patience.idle, Some(day));
    assert_eq!((config.limits.flows, config.limits.buffers), (None, 64 << 20));
    assert_eq!(config.reuse.per_workload, 256);
    let text = format!(
        "{EXAMPLE}timeouts: {{ idle: never, halfClosed: 5m }}\nsessions: {{ reuse: {{ perWorkload: 0 }} }}\n\
         limits: {{ flows: 10, handshakesPerSecond: 5, buffers: 512KiB }}\n"
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.timeouts.patience.idle, None);
    assert_eq!(config.timeouts.patience.half_closed, Some(Duration::from_secs(300)));
    assert_eq!(config.reuse.per_workload, 0);
    let limits = Limits { flows: Some(10), handshakes_per_second: 5, buffers: 512 << 10 };
    assert_eq!(config.limits, limits);
    for wrong in ["flows: 0", "handshakesPerSecond: 0", "buffers: lots", "buffers: 99999999999GiB"]
    {
        assert!(parse(&format!("{EXAMPLE}limits: {{ {wrong} }}\n")).is_err(), "{wrong}");
    }
}

/// What the library says, or the compiler's names of types: none of it means anything to who writes a configuration.
const WORDS_OF_LIBRARIES: [&str; 32] = [
    "DuplicateKeyPolicy",
    "Option<",
    "from_str",
    "Options",
    "serde",
    "saphyr",
    "granit",
    "deserialize",
    "struct ",
    "enum ",
    "variant",
    "invalid type",
    "invalid value",
    "expected",
    "scalar",
    "mapping start",
    "sequence start",
    "unit",
    "budget",
    "BudgetBreach",
    "u16",
    "u32",
    "usize",
    "i64",
    "nonzero",
    "NonZero",
    "visitor",
    "raw::",
    "anchor id",
    "replay",
    "time unit needed",
    "socket address syntax",
];

fn assert_own_words(error: &str, what: &str) {
    // What is in backquotes is the writer's own.
    let said: String = error.split('`').step_by(2).collect();
    for word in WORDS_OF_LIBRARIES {
        let is_whole = |at: usize| {
            let inside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase());
            word.len() > 5 || !inside(said[at + word.len()..].chars().next())
        };
        let found = said.match_indices(word).any(|(at, _)| is_whole(at));
        assert!(!found, "{word:?} in {error:?}, of {what:?}");
    }
}

#[test]
fn no_word_of_a_library_is_in_a_message_about_the_form() {
    for (from, to, expected) in [
        ("node: node-a", "node: node-a\nnode: node-b", "the key `node` is there twice"),
        ("node: node-a", "node:", "a value is missing"),
        ("node: node-a", "node: [a]", "a single value is wanted here"),
        ("node: node-a\n", "", "the key `node` is missing"),
        ("node: node-a", "node: !x node-a", ""),
        ("node: node-a", "node: *nobody", "an alias"),
        ("node: node-a", "node: \"node-a", "the indentation does not fit here"),
        ("node: node-a", "node: {", ""),
        ("node: node-a", "\tnode: node-a", "a tab"),
        ("node: node-a", "node: a: b", "look at the indentation"),
        ("node: node-a", "node: node-a\n---\nnode: node-b", ""),
        ("node: node-a", "node: node-a\n<<: 7", ""),
        ("node: node-a", "node: node-a\n? [a]\n: b", ""),
        ("workloads:", "workloads: 7\nx:", "a list is wanted here"),
        (
            "select: { cgroup: \"demo.slice/web*\" }",
            "select: web",
            "a mapping, keys with values, is wanted here",
        ),
        ("ports: [8080]", "ports: 8080", "a list is wanted here"),
        ("ports: [8080]", "ports: [80800]", "a number up to 65535 is wanted here"),
        ("ports: [8080]", "ports: [http]", "a number up to 65535 is wanted here"),
        ("ports: [8080]", "ports: [-1]", "a number up to 65535 is wanted here"),
        (
            "mode: strict",
            "mode: strickt",
            "`strickt` is none of `strict`, `permissive`, `disabled`",
        ),
        ("mode: strict", "mode: {}", ""),
        ("mode: strict", "mode:", ""),
        ("trustDomain: example.org", "trustDomain: []", ""),
        ("trustDomain: example.org", "trustDomain: Example.org", "Example.org"),
        ("capture: { cgroup: auto }", "limits: { flows: 0 }", "a number from 1 on is wanted here"),
        ("capture: { cgroup: auto }", "limits: { flows: many }", "a number"),
        ("capture: { cgroup: auto }", "limits: { flows: 99999999999999999999999 }", ""),
        ("capture: { cgroup: auto }", "limits: { buffers: many }", "not a number of bytes"),
        ("capture: { cgroup: auto }", "timeouts: { connect: 10 }", "not a length of time"),
        ("capture: { cgroup: auto }", "timeouts: { connect: 0s }", "must be longer than zero"),
        ("capture: { cgroup: auto }", "timeouts: { connect: soon }", "not a length of time"),
        (
            "capture: { cgroup: auto }",
            "dns: { servers: [10.0.0.53] }",
            "the address and port of a resolver",
        ),
        (
            "capture: { cgroup: auto }",
            "sessions: { reuse: { perWorkload: -1 } }",
            "a number is wanted here",
        ),
        ("capture: { cgroup: auto }", "tlsContexts: { a: b }", "a list is wanted here"),
        ("spiffeId: spiffe", "spiffeId: [spiffe]\n    x: spiffe", ""),
        ("spiffeIds: [\"spiffe://example.org/ns/demo/sa/web\"]", "pins: [{ certificate: [] }]", ""),
        ("spiffeIds: [\"spiffe://example.org/ns/demo/sa/web\"]", "pins: [7]", ""),
    ] {
        assert!(EXAMPLE.contains(from), "{from}");
        let parsed = parse(&EXAMPLE.replace(from, to));
        assert!(parsed.is_err() || expected.is_empty(), "{to}");
        if let Err(error) = parsed {
            assert!(error.contains(expected), "{to}: {error}");
            assert_own_words(&error, to);
        }
    }
    let error = parse(&format!("{EXAMPLE}---\nnode: b\n")).unwrap_err();
    assert!(error.contains("a configuration is one document"), "{error}");
    for text in [
        "",
        "---",
        "- a",
        "7",
        "null",
        "{",
        "\u{feff}",
        "%YAML 3.0\n---\na: b",
        "a: &a [*a]",
        "a: b\n---\nc: d",
    ] {
        assert_own_words(&parse(text).unwrap_err(), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// Something is put in place of a part of a good configuration, or a part is taken out.
    #[test]
    fn whatever_is_wrong_with_a_configuration_is_said_in_our_words(
        at: prop::sample::Index,
        length in 0..12_usize,
        put in prop_oneof![
            Just(""), Just("7"), Just("[]"), Just("{}"), Just("null"), Just("~"), Just(": "), Just("- "), Just("\""), Just("'"),
            Just("\t"), Just("\n"), Just("&a "), Just("*a"), Just("!!binary "), Just("!t "), Just("? "), Just("| "), Just("> "),
            Just("#"), Just("]"), Just("}"), Just(","), Just("<<: "), Just("1e400"), Just("0x"), Just("true"), Just("\n---\n"),
        ],
    ) {
        let start = at.index(EXAMPLE.len());
        let end = (start + length).min(EXAMPLE.len());
        let text = format!("{}{put}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
        if let Err(error) = parse(&text) {
            assert_own_words(&error, &text);
        }
    }
}

#[test]
fn what_is_beyond_a_limit_is_refused_with_the_limit_and_the_count() {
    let many =
        |count: usize, make: &dyn Fn(usize) -> String| -> String { (0..count).map(make).collect() };
    let address = |number: usize| std::net::Ipv4Addr::from(0x0a80_0000 + number as u32);
    let peers = many(131_072, &|n| format!("\"{}\",", address(n)));
    let peers = format!("  - match: [{peers}]\n    spiffeIds: [\"spiffe://example.org/a\"]\n");
    let error = parse(&format!("{EXAMPLE}{peers}")).unwrap_err();
    // The peer of the example and its two bypasses count as well.
    assert!(error.contains("131075 destinations in peers"), "{error}");
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
    assert!(with(&many(255, &|name| workload("80", name))).is_ok());
    let error = with(&many(256, &|name| workload("80", name))).unwrap_err();
    assert!(error.contains("257 workloads; 256 are the most"), "{error}");
    let every = many(65_535, &|port| format!("{},", port + 1));
    let error = with(&many(2, &|name| workload(&every, name))).unwrap_err();
    assert!(error.contains("131071 ports in inbound.ports"), "{error}");

    let names = many(2_049, &|n| format!("\"a{n}.example.com:443\","));
    let external = format!(
        "externalPeers:\n  - name: many\n    match: [{names}]\n    trust: {{ system: true }}\n    expect: {{ dnsNames: [a] }}\n"
    );
    let error = parse(&format!("{EXAMPLE}{external}")).unwrap_err();
    assert!(error.contains("each DNS name counts for 64; 131072 are the most"), "{error}");
}

#[test]
fn what_could_not_be_made_or_shown_is_refused() {
    let long = "x".repeat(100);
    let run_dir = format!("trustDomain: example.org\nrunDir: /{long}");
    let error = error_with("trustDomain: example.org", &run_dir);
    assert!(error.contains("path of 120 bytes; 107 are the most"), "{error}");
    let spire = format!("spire: {{ socket: /{long}/socket }}");
    let error = error_with("ca: { dir: /var/lib/sheath/ca }", &spire);
    assert!(error.contains("identity.spire.socket: the socket"), "{error}");
    for (from, to) in [("name: web", "name: \"we\\eb\""), ("node: node-a", "node: \"a\\nb\"")] {
        let error = error_with(from, to);
        assert!(error.contains("characters that are not shown"), "{error}");
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

#[test]
fn which_agent_a_file_is_about_is_told_whatever_else_is_wrong_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sheath.yaml");
    std::fs::write(&path, "instance: blue\nrunDir: /run/x\nnode: 7\nnonsense: [a]\n").unwrap();
    let instance = Instance::of_file(&path).unwrap();
    assert_eq!(instance, Instance::new("blue", Path::new("/run/x")).unwrap());
    std::fs::write(&path, "node: a\n").unwrap();
    assert_eq!(Instance::of_file(&path).unwrap().name, DEFAULT_INSTANCE);
    std::fs::write(&path, "instance: [").unwrap();
    assert_own_words(&Instance::of_file(&path).unwrap_err().to_string(), "an instance");
}
