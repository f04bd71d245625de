//! Programs that were not written for this test: nginx and curl, redis-server and redis-cli.

use std::process::Stdio;

use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, Setting};
use sheath_tests::programs::{Nginx, Redis};
use sheath_tests::world::FAMILIES;

#[test]
fn nginx_and_curl() {
    let pair = Pair::new(Setting::Pods);
    let secret = marker();
    let dir = pair.world.dir.path().join("nginx");
    let nginx = Nginx::start(&pair.server, &dir, PORT, &secret);
    for family in FAMILIES {
        let tap = pair.world.tap();
        let url = format!("http://{}/", pair.target(family));
        let output =
            pair.client.output(pair.client.command("curl").args(["-sS", "--max-time", "20", &url]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), secret);
        assert_ciphertext(&tap, PORT, &secret);
        let source = tap.attempts(PORT)[0];
        nginx.wait_for_client(source);
    }
}

#[test]
fn redis_server_and_redis_cli() {
    let pair = Pair::host();
    let secret = marker();
    let tap = pair.world.tap();
    let dir = pair.world.dir.path().join("redis");
    let _redis = Redis::start(&pair.server, &dir, PORT);
    let host = pair.world.b.addresses.v4.to_string();
    let redis_cli = |words: &[&str]| {
        let mut command = pair.client.command("redis-cli");
        command.args(["-h", &host, "-p", &PORT.to_string()]).args(words);
        let output = pair.client.output(command.stdin(Stdio::null()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(redis_cli(&["SET", "key", &secret]), "OK");
    assert_eq!(redis_cli(&["GET", "key"]), secret);
    assert_ciphertext(&tap, PORT, &secret);
}
