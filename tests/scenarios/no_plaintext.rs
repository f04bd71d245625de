//! Promises 1, 4 and 8: the applications speak plaintext, the wire carries mutual TLS 1.3 on the
//! application's own port, and both agents know whom they spoke to.

use sheath_tests::config::spiffe_id;
use sheath_tests::dissect::tls;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, Setting, say};
use sheath_tests::script::Step;
use sheath_tests::world::FAMILIES;

#[test]
fn a_flow_between_host_workloads_is_ciphertext_on_the_wire() {
    flow_is_ciphertext(Setting::Host);
}

#[test]
fn a_flow_between_pods_is_ciphertext_on_the_wire() {
    flow_is_ciphertext(Setting::Pods);
}

fn flow_is_ciphertext(setting: Setting) {
    let pair = Pair::new(setting);
    for family in FAMILIES {
        let tap = pair.world.tap();
        let marker = marker();
        let mut echo = pair.serve(family, &[Step::Echo]);
        let seen = pair.connect(pair.target(family), &say(&marker));
        assert_eq!(seen.ended_by(), None, "{family:?}: {seen:?}");
        assert_eq!(seen.last().text, marker);
        assert_eq!(echo.connection().ended_by(), None);

        assert_ciphertext(&tap, PORT, &marker);
        let streams = tap.streams_to(PORT);
        let offered = tls::alpn_offered(&streams[0].bytes).unwrap_or_default();
        assert!(offered.contains(&"sheath/1".to_owned()), "ALPN {offered:?}");
    }
}

#[test]
fn the_access_log_names_both_identities_and_the_bytes() {
    let pair = Pair::host();
    for family in FAMILIES {
        let _echo = pair.serve(family, &[Step::Echo]);
        let target = pair.target(family);
        let seen = pair.connect(target, &say("twelve bytes"));
        let source = seen.local.unwrap().to_string();

        let outbound = pair.agent_a.wait_for_access("the flow at A", |line| line.source == source);
        let inbound = pair.agent_b.wait_for_access("the flow at B", |line| line.source == source);
        for line in [&outbound, &inbound] {
            assert_eq!(line.outcome, "ok", "{line:?}");
            assert_eq!(line.protection, "mtls", "{line:?}");
            assert_eq!(line.destination, target.to_string(), "{line:?}");
            assert_eq!(line.reason, "", "{line:?}");
            assert_eq!((line.sent, line.received), (12, 12), "{line:?}");
        }
        assert_eq!((outbound.direction, inbound.direction), ("outbound".into(), "inbound".into()));
        assert_eq!((outbound.workload, inbound.workload), ("client".into(), "web".into()));
        assert_eq!(
            (outbound.local_id, inbound.peer_id),
            (spiffe_id("client"), spiffe_id("client"))
        );
        assert_eq!((outbound.peer_id, inbound.local_id), (spiffe_id("web"), spiffe_id("web")));
    }
}
