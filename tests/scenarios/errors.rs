//! What is wrong is said in one clear line, with a non-zero exit, and nothing is left behind.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output};

use sheath_tests::agent::Agent;
use sheath_tests::binaries;
use sheath_tests::cgroup;
use sheath_tests::pair::{Setting, configs};
use sheath_tests::pins;
use sheath_tests::world::World;

/// A configuration file on node A that can be spoilt.
struct Scene {
    agent: Agent,
    file: PathBuf,
    text: String,
    world: World,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let mut config = configs(&world, Setting::Host).0;
        config.log.format = "text";
        let text = config.to_text();
        let agent = Agent::prepare(&world, &world.a, config);
        let file = world.dir.path().join("node-a/sheath.yaml");
        Self { agent, file, text, world }
    }

    /// Replaces one piece of the configuration.
    fn spoil(&self, from: &str, to: &str) {
        assert!(self.text.contains(from), "{from:?} in {}", self.text);
        fs::write(&self.file, self.text.replacen(from, to, 1)).expect("the configuration");
    }

    /// Moves everything below a cgroup that does not exist, and returns its path.
    fn lose_cgroup(&self) -> String {
        let cgroup = &self.agent.config().capture.cgroup;
        let missing = format!("{cgroup}/missing");
        let text = self.text.replace(cgroup, &missing);
        fs::write(&self.file, text).expect("the configuration");
        missing
    }

    /// Line number of a text in the spoilt file.
    fn line_of(&self, text: &str) -> usize {
        let file = fs::read_to_string(&self.file).expect("the configuration");
        1 + file.lines().position(|line| line.contains(text)).expect("the text in the file")
    }

    fn run(&self) -> Output {
        self.agent.run_command().output().expect("running sheath")
    }

    /// Runs the agent, which must fail with one line that says all of `words`.
    #[track_caller]
    fn assert_fails(&self, code: i32, words: &[&str]) {
        let output = self.run();
        assert_one_line(&output, code, words);
        assert!(!pins::directory(self.agent.instance()).exists(), "pins are left behind");
    }

    /// A subcommand that is told the configuration.
    fn sheath(&self, subcommand: &str) -> Output {
        let mut command = Command::new(binaries::sheath());
        command.args([subcommand, "--config"]).arg(&self.file).output().expect("running sheath")
    }

    fn check(&self, more: &[&str]) -> Output {
        let place = self.world.a.host("check");
        let mut command = place.command(binaries::sheath());
        command.args(["check", "--config"]).arg(&self.file).args(more);
        command.output().expect("running sheath check")
    }
}

#[track_caller]
fn assert_one_line(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "one line, please: {stderr}");
    for word in words {
        assert!(errors[0].contains(word), "{word:?} in {:?}", errors[0]);
    }
}

/// Everybody may make directories in a bpffs whose mode is the kernel's own (1777), and could take away what is pinned there.
#[test]
fn a_pin_directory_that_is_somebody_elses_is_not_trusted() {
    const NOBODY: u32 = 65_534;
    let scene = Scene::new();
    pins::ensure_bpffs();
    let directory = pins::directory(scene.agent.instance());
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).expect("the directory");
    chown(&directory, Some(NOBODY), Some(NOBODY)).expect("giving the directory away");
    let output = scene.run();
    fs::remove_dir(&directory).expect("nothing was pinned there");
    let words = ["cannot trust the pin directory", "is not root's alone"];
    assert_one_line(&output, 1, &words);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_valid_key() {
    let scene = Scene::new();
    scene.spoil("\"spiffeId\"", "\"spifeId\"");
    let place = format!("sheath.yaml:{}", scene.line_of("spifeId"));
    scene.assert_fails(2, &["spifeId", "spiffeId", &place]);
    assert_one_line(&scene.check(&[]), 2, &["spifeId", "spiffeId", &place]);
}

#[test]
fn a_value_that_is_not_understood_is_named_with_its_line() {
    let scene = Scene::new();
    scene.spoil("\"require\"", "\"requires\"");
    let place = format!("sheath.yaml:{}", scene.line_of("requires"));
    scene.assert_fails(2, &["requires", &place]);
}

#[test]
fn a_spiffe_id_that_is_none_is_refused() {
    let scene = Scene::new();
    scene.spoil("spiffe://example.org/ns/demo/sa/client", "https://example.org/client");
    scene.assert_fails(2, &["https://example.org/client"]);
}

#[test]
fn a_destination_that_is_none_is_refused() {
    let scene = Scene::new();
    scene.spoil("10.0.2.0/24", "10.0.2.0/33");
    scene.assert_fails(2, &["10.0.2.0/33"]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let output =
        Command::new(binaries::sheath()).args(["run", "--config", "/nowhere.yaml"]).output();
    let output = output.expect("running sheath");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.starts_with("error: ") && stderr.contains("/nowhere.yaml"), "{stderr}");
}

/// What is no file is not waited for, a device without an end is not read, and what anybody may write is not believed.
#[test]
fn a_configuration_that_is_no_file_or_not_ones_own_is_refused_at_once() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let scene = Scene::new();
    let replace = |make: &dyn Fn()| {
        let _ = fs::remove_file(&scene.file);
        make();
    };
    let with_mode = |mode: u32, owner: u32| {
        fs::write(&scene.file, &scene.text).unwrap();
        chown(&scene.file, Some(owner), None).unwrap();
        fs::set_permissions(&scene.file, fs::Permissions::from_mode(mode)).unwrap();
    };
    let fifo = || nix::unistd::mkfifo(&scene.file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cases: [(&dyn Fn(), &str); 6] = [
        (&|| symlink("/dev/zero", &scene.file).unwrap(), "it is a device, not a regular file"),
        (&fifo, "it is a FIFO, not a regular file"),
        (&|| with_mode(0o666, 0), "(mode 0666); `chmod go-w` it"),
        (&|| with_mode(0o664, 0), "(mode 0664); `chmod go-w` it"),
        (&|| with_mode(0o600, 1000), "it belongs to the user 1000"),
        (
            &|| fs::File::create(&scene.file).unwrap().set_len(65 << 20).unwrap(),
            "longer than 64 MiB",
        ),
    ];
    for (make, reason) in cases {
        replace(make);
        scene.assert_fails(2, &["sheath.yaml", reason]);
        assert_one_line(&scene.check(&[]), 2, &["sheath.yaml", reason]);
        let by_file = scene.sheath("reload");
        assert_one_line(&by_file, 2, &["sheath.yaml", reason]);
    }
    for mode in [0o600, 0o640, 0o644, 0o444] {
        replace(&|| with_mode(mode, 0));
        assert!(scene.check(&[]).status.success(), "{mode:o}");
    }
}

/// `check` and `run` say the same, and neither with an error number of the kernel's.
#[test]
fn what_is_beyond_a_limit_is_refused_by_check_as_by_run() {
    let scene = Scene::new();
    let network =
        |number: u32| format!("{}/31", std::net::Ipv4Addr::from(0x0b00_0000 + 2 * number));
    let many: Vec<_> = (0..200_000).map(network).collect();
    scene.spoil("\"10.0.2.0/24\"", &format!("\"{}\"", many.join("\",\"")));
    let words = ["address prefixes in peers", "131072 are the most"];
    scene.assert_fails(2, &words);
    assert_one_line(&scene.check(&[]), 2, &words);
}

#[test]
fn every_command_takes_a_configuration_or_a_name() {
    let scene = Scene::new();
    for command in ["status", "certs", "reload", "cleanup"] {
        let by_file = scene.sheath(command);
        let by_name = scene.agent.sheath(command, &[]);
        assert_eq!(by_file, by_name, "{command}");
    }
    let ca = |more: &[&str]| {
        let mut command = Command::new(binaries::sheath());
        command.args(["ca", "show", "--config"]).arg(&scene.file).args(more);
        command.output().expect("running sheath ca")
    };
    let shown = String::from_utf8_lossy(&ca(&[]).stdout).into_owned();
    assert!(shown.contains("trust domain example.org"), "{shown}");
    for both in [["--dir", "/x"], ["--instance", "x"]] {
        assert_eq!(ca(&both).status.code(), Some(2), "{both:?}");
    }
    // By name alone, a configuration is where packages put it.
    let mut command = Command::new(binaries::sheath());
    let output = command.args(["check", "--instance", "nobody-has-this"]).output().unwrap();
    assert_one_line(&output, 2, &["/etc/sheath/nobody-has-this.yaml", "there is no such file"]);
}

#[test]
fn a_missing_cgroup_is_named() {
    let scene = Scene::new();
    let missing = scene.lose_cgroup();
    scene.assert_fails(1, &[&missing]);
    assert!(!cgroup::mount().join(missing).exists());
}

#[test]
fn an_unreadable_key_is_named() {
    let scene = Scene::new();
    let key = scene.agent.config().ca_dir().join("ca.key");
    fs::remove_file(&key).expect("removing the key");
    // The certificate alone can be trusted, but nothing can be issued from it.
    scene.assert_fails(1, &[key.with_extension("crt").to_str().unwrap(), "key beside it"]);
    fs::write(&key, "not a key\n").expect("a broken key");
    scene.assert_fails(1, &[key.to_str().unwrap()]);
}

#[test]
fn missing_capabilities_are_said() {
    let scene = Scene::new();
    let place = scene.world.a.host("powerless");
    let mut command = place.command("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]).arg(binaries::sheath());
    command.args(["run", "--config"]).arg(&scene.file);
    let output = command.output().expect("setpriv (package util-linux)");
    assert_one_line(&output, 1, &[]);
    assert!(!pins::directory(scene.agent.instance()).exists(), "pins are left behind");
}

#[test]
fn a_check_of_a_good_configuration_finds_no_error() {
    let scene = Scene::new();
    let output = scene.check(&["--output", "json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(!pins::directory(scene.agent.instance()).exists(), "a check installs nothing");
}

#[test]
fn a_check_finds_a_missing_cgroup() {
    let scene = Scene::new();
    let missing = scene.lose_cgroup();
    let output = scene.check(&[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&missing), "{said}");
}

#[test]
fn ca_init_does_not_overwrite() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let init = || {
        let mut command = Command::new(binaries::sheath());
        command.args(["ca", "init", "--trust-domain", "example.org", "--dir"]).arg(dir.path());
        command.output().expect("running sheath ca init")
    };
    let first = init();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let read = |name: &str| fs::read(dir.path().join(name)).expect("a file of the authority");
    let mode =
        |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.crt"), mode("ca.key")), (0o644, 0o600));
    let before = (read("ca.crt"), read("ca.key"));
    assert_one_line(&init(), 1, &[]);
    assert_eq!((read("ca.crt"), read("ca.key")), before);
}

#[test]
fn status_without_an_agent_says_so() {
    let scene = Scene::new();
    let output = scene.agent.sheath("status", &[]);
    assert_one_line(&output, 1, &[]);
}
