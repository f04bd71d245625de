//! Promise 1 as a matrix: every kind of socket, prepared and opened in every way, to every kind of destination, in both
//! modes and settings, with the agent alive and dead. What is forbidden is one thing alone: its bytes on the wire.

use sheath_tests::leaks::Scene;
use sheath_tests::pair::Setting;

#[test]
fn no_socket_gets_plaintext_out_of_require_on_the_host() {
    play(Setting::Host, "require");
}

#[test]
fn no_socket_gets_plaintext_out_of_require_in_a_pod() {
    play(Setting::Pods, "require");
}

#[test]
fn no_socket_gets_plaintext_to_a_peer_out_of_prefer_on_the_host() {
    play(Setting::Host, "prefer");
}

#[test]
fn no_socket_gets_plaintext_to_a_peer_out_of_prefer_in_a_pod() {
    play(Setting::Pods, "prefer");
}

fn play(setting: Setting, mode: &'static str) {
    let mut scene = Scene::new(setting, mode);
    // The honest ones among them are served: it is not that nothing works.
    scene.assert_nothing_leaks(None, "agent alive", |served| served > 0);
    scene.pair.agent_a.kill();
    scene.assert_nothing_leaks(None, "agent dead", |_| true);
}
