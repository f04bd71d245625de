//! All scenarios, in the order in which they run.

use crate::hosts::Hosts;
use crate::one::One;
use crate::{kinds, package, reboot, service};

/// A scenario, and what it runs in.
pub struct Scenario {
    pub name: &'static str,
    pub shows: &'static str,
    pub kind: Kind,
}

/// Scenarios return what they have counted, in a few words, or nothing.
#[derive(Clone, Copy)]
pub enum Kind {
    /// In one machine that all such scenarios share.
    One(fn(&mut One) -> String),
    /// Scenarios of the tests' program, by the beginnings of their names, in that machine.
    Tests(&'static [&'static str]),
    /// With two machines that are set up as README.md says, and that all such scenarios share.
    Two(fn(&mut Hosts) -> String),
}

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    [in_one(), in_two()].into_iter().flatten().collect()
}

fn in_one() -> Vec<Scenario> {
    let tests = |name, shows, tests| Scenario { name, shows, kind: Kind::Tests(tests) };
    vec![
        Scenario {
            name: "boot",
            shows: "the machine is up, with systemd and pure cgroup v2",
            kind: Kind::One(One::is_up),
        },
        Scenario {
            name: "check",
            shows: "`sheath check` finds all that is needed",
            kind: Kind::One(One::check),
        },
        tests(
            "programs",
            "all programs load, far from the verifier's limit",
            &["programs::no_program"],
        ),
        tests(
            "capture",
            "IPv4, IPv6 and mapped connections are mutual TLS (1)",
            &["no_plaintext::a_flow_between_pods", "addresses::mapped_sockets"],
        ),
        tests(
            "addresses",
            "both sides and the wire see the real addresses (7, 8)",
            &["addresses::both_applications"],
        ),
        tests(
            "refusal",
            "no fallback, and not any peer (2, 4, 5)",
            &[
                "peers::a_rogue_server",
                "peers::a_plaintext_client",
                "peers::a_workload_that_is_not",
                "modes::outbound_require",
            ],
        ),
        tests(
            "identity",
            "the workload is the calling cgroup's (3)",
            &["identity::another_workload", "identity::a_nested_cgroup"],
        ),
        tests(
            "tcp",
            "ends, resets and slow readers (6)",
            &["tcp::the_client_ends_first", "tcp::a_reset_by", "tcp::a_slow_reader"],
        ),
        tests(
            "status",
            "what is detached is told of and repaired (9)",
            &["status::detached_programs", "status::detached_steering"],
        ),
        tests(
            "steering",
            "sk_lookup in namespaces of pods and the host's",
            &["modes::inbound_without_ports", "ownership::a_declared_port"],
        ),
        tests(
            "guards",
            "what did not come through the agent is dropped",
            &["guards::a_strict_port", "guards::a_socket_of_a_workload"],
        ),
        tests(
            "killed",
            "the client's agent is killed under traffic (2)",
            &["fail_closed::the_clients_agent_is_killed_under_traffic_between_hosts"],
        ),
        tests(
            "killed_server",
            "the server's agent is killed under traffic (2)",
            &["fail_closed::the_servers_agent"],
        ),
        tests("mptcp", "MPTCP, of which kernels know more or less", &["guards::mptcp"]),
        tests(
            "restart",
            "a restart adopts what is pinned",
            &["lifecycle::a_restart_adopts", "lifecycle::a_service_manager"],
        ),
        tests(
            "existing",
            "connections that were there before",
            &["existing::existing_connections_are_reset"],
        ),
        tests(
            "tricks",
            "what an unprivileged process can do with sockets",
            &[
                "socket_tricks::tcp_fast_open",
                "socket_tricks::every_trick_while",
                "socket_tricks::a_socket_created_before",
            ],
        ),
        tests(
            "enrolment",
            "a cgroup is protected when it is made, also without an agent",
            &["enrolment::a_new_cgroups", "enrolment::nor_are"],
        ),
        tests("flows", "two thousand connections at a time", &["load::two_thousand"]),
        tests("memory", "buffers are bounded", &["limits::buffers"]),
        tests("applications", "nginx and redis", &["real_programs::"]),
        tests(
            "filters",
            "other programs on the workload's cgroup are found",
            &["foreign_filters::a_filter_further_in"],
        ),
    ]
}

fn in_two() -> Vec<Scenario> {
    let two = |name, shows, run| Scenario { name, shows, kind: Kind::Two(run) };
    vec![
        two(
            "first_configuration",
            "README.md's first configuration, word for word: nginx and a client unit",
            Hosts::is_as_promised,
        ),
        two(
            "package_upgrade",
            "an upgrade of the Debian package fails no call, and live connections go on",
            package::upgrade,
        ),
        two(
            "package_removal",
            "without the package, what was protected is refused",
            package::removal,
        ),
        two("package_purge", "nothing of it is left in the kernel", package::purge),
        two("reload", "`systemctl reload`, also of a file that does not fit", service::reload),
        two("restarted", "`systemctl restart` of both agents under traffic", service::restart),
        two("killed_service", "SIGKILL, and systemd starts the agent again", service::kill),
        two(
            "watchdog",
            "an agent that hangs is ended by its watchdog and started again",
            service::watchdog,
        ),
        two("transient_units", "`systemd-run`, as a service and as a scope", kinds::transient),
        two("user_sessions", "a user's login session and service manager", kinds::users),
        two(
            "fifty_restarts",
            "a unit that is started 50 times is protected each time from its first packet",
            kinds::restarts,
        ),
        two("dynamic_user", "`DynamicUser=`", kinds::dynamic_user),
        two(
            "socket_activation",
            "systemd listens, and starts the workload at the first connection",
            kinds::socket_activation,
        ),
        two("address_filters", "`IPAddressDeny=`, `IPAddressAllow=`", kinds::address_filters),
        two("interface_filters", "`RestrictNetworkInterfaces=`", kinds::interface_filters),
        two(
            "reboot_of_the_client",
            "power-cycled under traffic: protected from the first packet",
            reboot::client,
        ),
        two(
            "reboot_of_the_server",
            "the same of the server's host: no stranger is served",
            reboot::server,
        ),
        two(
            "reboot_out_of_order",
            "a unit that is ordered before Sheath reaches nobody until Sheath is there",
            reboot::out_of_order,
        ),
        two(
            "reboot_with_early_network",
            "the same where the network is up before Sheath, if the unit asserts Sheath",
            reboot::early_network,
        ),
        two(
            "reboot_without_configuration",
            "a unit that requires Sheath does not start without",
            reboot::broken,
        ),
    ]
}
