//! What a process of a workload can do with one capability more than none, and what not: see SECURITY.md.

use sheath_tests::leaks::Scene;
use sheath_tests::names::marker;
use sheath_tests::pair::Setting;
use sheath_tests::probe::Probe;
use sheath_tests::script::Job;

/// Capabilities that containers and services commonly have, and those that are about networks.
const COMMON: [&str; 7] =
    ["net_bind_service", "net_raw", "net_admin", "setuid", "dac_override", "sys_ptrace", "bpf"];

#[test]
fn no_socket_of_an_ordinary_user_gets_plaintext_out() {
    let scene = Scene::new(Setting::Host, "require");
    scene.assert_nothing_leaks(Some(&[]), "no capability", |served| served > 0);
}

/// A capability changes what a process may do besides, not what becomes of its TCP sockets.
#[test]
fn no_socket_gets_plaintext_out_by_any_one_capability() {
    let scene = Scene::new(Setting::Pods, "require");
    for capability in COMMON {
        scene.assert_nothing_leaks(Some(&[capability]), capability, |served| served > 0);
    }
}

/// Told in SECURITY.md, and seen here so that it is not believed otherwise: a packet socket has no cgroup program.
#[test]
fn with_cap_net_raw_a_frame_of_ones_own_leaves() {
    let scene = Scene::new(Setting::Host, "require");
    let send = |capabilities: &[&str]| {
        let text = marker();
        let tap = scene.pair.world.tap();
        let job = Job::Frame { device: scene.device.to_owned(), text: text.clone() };
        let (client, world) = (&scene.pair.client, &scene.pair.world);
        let seen = Probe::start_as_user(client, world, &job, capabilities).connection();
        (seen.error, tap.frames().iter().filter(|frame| has(frame, &text)).count())
    };
    assert_eq!(send(&[]), (Some(libc::EPERM), 0));
    assert_eq!(send(&["net_raw"]), (None, 1));
}

fn has(frame: &[u8], text: &str) -> bool {
    frame.windows(text.len()).any(|window| window == text.as_bytes())
}
