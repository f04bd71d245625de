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
    assert!(error.contains("`10.0.2.1/24` is no destination"), "{error}");
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
