//! Kinds of units: each has its cgroup made in another way, by another manager.

use sheath_tests::vm::machine::SHORT;
use sheath_tests::wait;

use crate::hosts::{Hosts, call, status};

/// Beside README.md's client: units whose names begin with `job-`, and everything of a user.
const MORE_CLIENTS: &str = "  - name: job
    select: { cgroup: /system.slice/job-* }
    spiffeId: spiffe://example.org/job
    outbound: { mode: require }
  - name: user
    select: { cgroup: /user.slice/user-1000.slice }
    spiffeId: spiffe://example.org/user
    outbound: { mode: require }
peers:
  - match: [\"10.0.2.1/32:9090\"]
    spiffeIds: [\"spiffe://example.org/echo\"]
";

/// Beside README.md's server: a service for each connection, which systemd accepts.
const MORE_SERVERS: &str = "  - name: echo
    select: { cgroup: /system.slice/system-echo.slice }
    spiffeId: spiffe://example.org/echo
    inbound: { mode: strict, ports: [9090], allow: [\"spiffe://example.org/job\"], activator: /system.slice/echo.socket }
";

/// Has the agents protect more than README.md's.
#[track_caller]
fn configure(hosts: &mut Hosts) {
    let client = hosts.first.client.replace("peers:\n", MORE_CLIENTS);
    let allowed = "\"spiffe://example.org/client\", \"spiffe://example.org/job\", \"spiffe://example.org/user\"";
    let server = hosts.first.server.replace("\"spiffe://example.org/client\"", allowed);
    hosts.configure(&client, &(server + MORE_SERVERS));
    // It would be in the way of what is counted.
    hosts.a.must("systemctl stop client");
}

#[track_caller]
pub fn transient(hosts: &mut Hosts) -> String {
    configure(hosts);
    let mark = hosts.wire.mark();
    let call = call(&hosts.secret);
    let (is_served, said) = hosts.job("service", "", &call);
    assert!(is_served && said.contains(&hosts.secret), "{said}");
    let scope = format!("systemd-run --quiet --scope --collect --unit job-scope {call}");
    let said = hosts.a.must(&scope);
    assert!(said.contains(&hosts.secret), "{said}");
    hosts.assert_ciphertext(mark);
    let log = hosts.b.must("journalctl --boot --unit sheath --output cat --lines 5");
    assert!(log.contains("spiffe://example.org/job"), "{log}");
    String::new()
}

#[track_caller]
pub fn users(hosts: &mut Hosts) -> String {
    configure(hosts);
    let mark = hosts.wire.mark();
    let call = call(&hosts.secret);
    // A session of logind's, by way of PAM.
    let said =
        hosts.a.must(&format!("su --login user --command \"cat /proc/self/cgroup; {call}\""));
    assert!(said.contains("/user.slice/user-1000.slice/session-"), "{said}");
    assert!(said.contains(&hosts.secret), "{said}");
    hosts.a.must("loginctl enable-linger user");
    hosts.a.wait_for("the user's manager", "systemctl is-active user@1000.service");
    let run = "systemd-run --quiet --machine user@.host --user --wait --pipe --collect --unit call";
    let said = hosts.a.must(&format!("{run} {call}"));
    assert!(said.contains(&hosts.secret), "{said}");
    hosts.assert_ciphertext(mark);
    let log = hosts.b.must("journalctl --boot --unit sheath --output cat --lines 5");
    assert!(log.contains("spiffe://example.org/user"), "{log}");
    hosts.a.must("loginctl disable-linger user");
    String::new()
}

#[track_caller]
pub fn restarts(hosts: &mut Hosts) -> String {
    const TIMES: usize = 50;
    configure(hosts);
    let mark = hosts.wire.mark();
    let call = call(&hosts.secret).replace('\'', "\"");
    let unit =
        format!("[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart={call}\n");
    hosts.a.write("/run/systemd/system/job-again.service", &unit);
    let times = format!(
        "systemctl daemon-reload; for i in $(seq {TIMES}); do systemctl restart job-again || exit 1; done"
    );
    let ended = hosts.a.run(&times, 5 * SHORT);
    let log = hosts.a.must("journalctl --boot --unit job-again --output cat");
    assert!(ended.success(), "{ended:?}\n{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with(&hosts.secret)).count(), TIMES, "{log}");
    hosts.assert_ciphertext(mark);
    format!("{TIMES} starts")
}

#[track_caller]
pub fn dynamic_user(hosts: &mut Hosts) -> String {
    configure(hosts);
    let mark = hosts.wire.mark();
    let call = call(&hosts.secret);
    let (is_served, said) = hosts.job("dynamic", "--property DynamicUser=yes", &call);
    assert!(is_served && said.contains(&hosts.secret), "{said}");
    hosts.assert_ciphertext(mark);
    String::new()
}

/// The first connection is served as well, and no stranger's. systemd makes the socket from within the cgroup of the socket's unit.
#[track_caller]
pub fn socket_activation(hosts: &mut Hosts) -> String {
    let socket = "[Socket]\nListenStream=9090\nAccept=yes\n";
    let service = "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n";
    hosts.b.write("/run/systemd/system/echo.socket", socket);
    hosts.b.write("/run/systemd/system/echo@.service", service);
    hosts.b.must("systemctl daemon-reload && systemctl start echo.socket");
    configure(hosts);
    let mark = hosts.wire.mark();
    let talk = format!(
        "exec 3<>/dev/tcp/10.0.2.1/9090; echo {} >&3; read -t 20 -r line <&3; echo \"heard $line\"",
        hosts.secret
    );
    let stranger =
        hosts.a.run(&format!("bash -c '{}'", talk.replace(&hosts.secret, "stranger")), SHORT);
    assert!(!stranger.stdout.contains("heard stranger"), "{stranger:?}");
    hosts.a.write("/run/talk", &talk);
    for name in ["first", "second"] {
        let (_, said) = hosts.job(name, "", "bash /run/talk");
        assert!(said.contains(&format!("heard {}", hosts.secret)), "{said}");
    }
    hosts.assert_unseen(mark);
    hosts.b.must("systemctl stop echo.socket");
    String::new()
}

/// A unit that may not speak with loopback does not reach the agent: it is refused, and told of.
#[track_caller]
pub fn address_filters(hosts: &mut Hosts) -> String {
    let deny = "--property IPAddressDeny=any --property IPAddressAllow=";
    filters(hosts, &format!("{deny}10.0.2.1"), &format!("{deny}localhost"))
}

#[track_caller]
pub fn interface_filters(hosts: &mut Hosts) -> String {
    let features = hosts.a.must("systemctl --version");
    assert!(features.contains("+BPF_FRAMEWORK"), "{features}");
    let only = "--property RestrictNetworkInterfaces=";
    filters(hosts, &format!("{only}eth0"), &format!("{only}eth0 {only}lo"))
}

#[track_caller]
fn filters(hosts: &mut Hosts, without: &str, with: &str) -> String {
    configure(hosts);
    let mark = hosts.wire.mark();
    let call = call(&hosts.secret);
    let (is_served, said) = hosts.job("without", without, &call);
    assert!(!is_served && !said.contains(&hosts.secret), "{said}");
    let (is_served, said) = hosts.job("with", with, &call);
    assert!(is_served && said.contains(&hosts.secret), "{said}");
    hosts.assert_unseen(mark);
    // One that goes on is told of.
    let stays = format!("systemd-run --quiet --collect --unit job-stays {without} sleep 600");
    hosts.a.must(&stays);
    let mut last = None;
    let told = wait::try_for(SHORT, || {
        let status = status(&mut hosts.a);
        let job = status.workload("job");
        let reason = (job.state == "degraded").then(|| job.reason.clone());
        last = Some(status);
        reason
    });
    let told = told.unwrap_or_else(|| panic!("the filter is not told of: {last:#?}"));
    hosts.a.must("systemctl stop job-stays");
    told
}
