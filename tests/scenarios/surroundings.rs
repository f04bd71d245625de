//! An agent that was started where it does not see the host: it makes up for it, or refuses to start and says why.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use sheath_tests::agent::Agent;
use sheath_tests::binaries;
use sheath_tests::cgroup;
use sheath_tests::judge::assert_ciphertext;
use sheath_tests::names::marker;
use sheath_tests::pair::{PORT, Pair, Setting, any, client, configs, say, server};
use sheath_tests::pins;
use sheath_tests::place::Place;
use sheath_tests::probe::{self, Probe};
use sheath_tests::script::Step;
use sheath_tests::world::{FAMILIES, World};

const OPEN_PORT: u16 = 9090;

/// The kernel matches the paths of new cgroups from the root of the hierarchy, whatever the agent sees.
#[test]
fn an_agent_in_a_cgroup_namespace_of_its_own_protects_new_workloads_too() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::with(Setting::Host, |a, _| {
        a.binary = script(&dir, &format!("exec unshare --cgroup {} \"$@\"", a.binary.display()));
    });
    let tap = pair.world.tap();
    let secret = marker();
    let open = pair.world.b.host("open");
    for (name, family) in ["client-later", "client-last"].into_iter().zip(FAMILIES) {
        let late = Place::new(&pair.client.netns, &pair.world.a.host(name).cgroup);
        let _open = Probe::start(&open, &server(any(family, OPEN_PORT), &[Step::Echo]));
        let to = pair.world.b.addresses.at(family, OPEN_PORT);
        let seen = probe::run(&late, &client(to, &say(&secret)));
        assert!(seen.ended_by().is_some(), "{family:?}: {seen:?}");
        let _echo = pair.serve(family, &[Step::Echo]);
        let seen = probe::run(&late, &client(pair.target(family), &say(&secret)));
        assert_eq!(seen.last().text, secret, "{family:?}: {seen:?}");
    }
    assert_ciphertext(&tap, PORT, &secret);
    let check = pair.agent_a.sheath_check();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

#[test]
fn an_agent_that_does_not_see_the_host_refuses_to_start_and_check_says_why() {
    let scene = Scene::new();
    let mount = cgroup::mount().display().to_string();
    // How it is started, and what it then says.
    let cases = [
        ("exec unshare --pid --fork \"$@\"".to_owned(), "namespace of its own (pid)", "--pid=host"),
        (
            // What `ip netns exec` does.
            mounts("umount --lazy /sys; mount --types sysfs sheath-test /sys"),
            "mount namespace hides",
            "nsenter --net=",
        ),
        (
            mounts(&format!("mount --bind {mount}/{} {mount}", scene.world.a.cgroup.relative())),
            "only a part of the host's",
            "as a whole",
        ),
        (
            // The view of an unprivileged container: the kernel's paths are others.
            format!(
                "exec unshare --cgroup --mount sh -ec 'umount {mount}; mount --types cgroup2 none {mount}; exec \"$@\"' - \"$@\""
            ),
            "only a part of the host's",
            "as a whole",
        ),
        (
            mounts("umount /sys/fs/bpf; mount --types bpf bpf /sys/fs/bpf"),
            "/sys/fs/bpf is not the host's",
            "mount bpffs on the host",
        ),
    ];
    for (how, found, advice) in cases {
        let run = scene.sheath(&how, "run");
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{how}: {stderr}");
        assert!(stderr.contains(found) && stderr.contains(advice), "{how}: {stderr}");
        assert!(!pins::directory(scene.agent.instance()).exists(), "{how}: pins are left behind");
        let check = scene.sheath(&how, "check");
        let stdout = String::from_utf8_lossy(&check.stdout);
        assert!(!check.status.success(), "{how}: {stdout}");
        assert!(stdout.contains(found) && stdout.contains(advice), "{how}: {stdout}");
        // What is hidden is not for somebody to mount anew.
        assert!(!stdout.contains("systemd.unified"), "{how}: {stdout}");
    }
}

/// Whichever descriptor it is that the runtime, a library or the kernel does not get.
#[test]
fn an_agent_that_may_open_too_few_files_says_so() {
    let scene = Scene::new();
    for limit in 5..=40 {
        let run = scene.sheath(&format!("exec prlimit --nofile={limit} \"$@\""), "run");
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(!stderr.contains("panicked"), "{limit}: {stderr}");
        assert_eq!(run.status.code(), Some(1), "{limit}: {stderr}");
        assert!(stderr.to_lowercase().contains("too many open files"), "{limit}: {stderr}");
    }
    assert!(!pins::directory(scene.agent.instance()).exists(), "pins are left behind");
}

/// An agent that captured itself would dial in circles, so it must know its own cgroup by the path that the kernel knows.
#[test]
fn an_agent_in_a_cgroup_namespace_of_its_own_still_finds_itself_in_a_workload() {
    let scene = Scene::new();
    let text = scene.agent.config().to_text().replace("/client*", "/surroundings*");
    fs::write(scene.agent.file(), text).unwrap();
    let run = scene.sheath("exec unshare --cgroup \"$@\"", "run");
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("selects the cgroup of the agent itself"), "{stderr}");
}

/// Commands in a mount namespace of their own, then the agent.
fn mounts(commands: &str) -> String {
    format!("exec unshare --mount sh -ec '{commands}; exec \"$@\"' - \"$@\"")
}

struct Scene {
    agent: Agent,
    dir: tempfile::TempDir,
    world: World,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let agent = Agent::prepare(&world, &world.a, configs(&world, Setting::Host).0);
        Self { agent, dir: tempfile::tempdir().unwrap(), world }
    }

    fn sheath(&self, how: &str, subcommand: &str) -> Output {
        let place = self.world.a.host(&format!("surroundings-{subcommand}"));
        let mut command = place.command(script(&self.dir, how));
        // An agent that starts after all does not stay.
        command.args(["timeout", "--signal=KILL", "20"]).arg(binaries::sheath());
        command.args([subcommand, "--config"]).arg(self.agent.file());
        run_to_end(&mut command)
    }
}

/// A shell script in a file.
fn script(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("start");
    binaries::script(&path, text);
    path
}

fn run_to_end(command: &mut Command) -> Output {
    command.output().expect("sh and unshare (package util-linux)")
}
