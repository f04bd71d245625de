//! Scenarios in one machine: that it boots, what `sheath check` says there, and scenarios of the tests' program, which make
//! their nodes in it.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Deserialize;
use sheath_tests::vm::machine::{Machine, Plan};
use sheath_tests::vm::qemu::Acceleration;
use sheath_tests::vm::{CLONE, PROGRAMS};
use sheath_tests::wait::SLOWNESS;

use crate::setting::Setting;

/// How long all scenarios of a row may take.
const LONG: Duration = Duration::from_secs(1200);

/// A configuration for `sheath check`.
const CHECKED: &str = "trustDomain: example.org
node: a
identity: { ca: { dir: /tmp/ca } }
workloads:
  - name: x
    select: { systemdUnit: x.service }
    spiffeId: spiffe://example.org/x
    outbound: { mode: prefer }
";

/// What it has to say about the host.
const OF_HOST: [&str; 10] = [
    "kernel",
    "lockdown",
    "btf",
    "namespaces",
    "cgroup v2",
    "bpffs",
    "cgroup v1",
    "privileges",
    "programs",
    "capture",
];

/// One thing that `sheath check` has looked at.
#[derive(Debug, Deserialize)]
struct Finding {
    level: String,
    subject: String,
    found: String,
}

/// The machine.
pub struct One {
    machine: Machine,
    accel: Acceleration,
    release: String,
    booted: Duration,
}

impl One {
    #[track_caller]
    pub fn boot(setting: &Setting) -> Self {
        let plan =
            Plan { name: "host", wire: None, memory_mib: 2048, processors: setting.processors };
        let start = Instant::now();
        let mut machine = Machine::start(&setting.images, &setting.kernel, setting.accel, &plan);
        machine.wait_up();
        let booted = start.elapsed();
        // Programs know the clone by where it was when they were built.
        let clone = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the clone").display();
        machine.must(&format!("mkdir -p $(dirname {clone}) && ln -sfn {CLONE} {clone}"));
        let release = setting.kernel.version()[0].clone();
        Self { machine, accel: setting.accel, release, booted }
    }

    /// Prints the logs.
    pub fn tell(&self) {
        self.machine.tell();
    }

    /// Runs a script of a developer's, and prints what it says.
    pub fn play(&mut self, script: &str) -> ExitCode {
        let ended = self.machine.run(script, LONG);
        print!("{}", ended.stdout);
        eprint!("{}", ended.stderr);
        ExitCode::from(ended.status.and_then(|status| u8::try_from(status).ok()).unwrap_or(1))
    }

    pub fn is_up(&mut self) -> String {
        self.machine.wait_running();
        assert_eq!(self.machine.must("uname -r"), self.release);
        let mounts = self.machine.must("cat /proc/mounts");
        let is = |line: &&str, kind: &str| line.split(' ').nth(2) == Some(kind);
        assert_eq!(mounts.lines().filter(|line| is(line, "cgroup")).count(), 0, "{mounts}");
        assert_eq!(mounts.lines().filter(|line| is(line, "cgroup2")).count(), 1, "{mounts}");
        let systemd = self.machine.must("systemctl --version | head -1 | cut -d' ' -f1,2");
        let up = self.machine.must("systemd-analyze time | head -1");
        format!("{systemd}, asked after {:.1} s; {up}", self.booted.as_secs_f64())
    }

    /// What `sheath check` says about this kernel goes into the table: it must not say less, or something else, than that.
    pub fn check(&mut self) -> String {
        self.machine.write("/tmp/check.yaml", CHECKED);
        let script = format!(
            "export PATH=$PATH:{PROGRAMS} && \
             sheath ca init --dir /tmp/ca --trust-domain example.org >/dev/null && \
             sheath check --config /tmp/check.yaml --output json"
        );
        let check = self.machine.run(&script, LONG);
        let findings: Vec<Finding> = serde_json::from_str(&check.stdout)
            .unwrap_or_else(|error| panic!("{error}: {check:?}"));
        assert!(check.success() && findings.iter().all(|it| it.level != "error"), "{check:?}");
        let of_host = |it: &&Finding| OF_HOST.contains(&it.subject.as_str());
        for subject in OF_HOST {
            let is_there = findings.iter().any(|it| it.subject == subject);
            assert!(is_there, "nothing about {subject}: {findings:?}");
        }
        let kernel = findings.iter().find(|it| it.subject == "kernel").map(|it| &it.found);
        assert_eq!(kernel, Some(&self.release));
        // The release is in the table already.
        let said = findings.iter().filter(of_host).filter(|it| it.subject != "kernel");
        let said = said.map(|it| format!("{} {}: {}", it.level, it.subject, it.found));
        said.collect::<Vec<_>>().join("; ")
    }

    /// Runs scenarios of the tests' program whose names begin with one of these.
    #[track_caller]
    pub fn tests(&mut self, names: &[&str]) -> String {
        let script = format!(
            "cd {CLONE} && export {SLOWNESS}={} SHEATH_BIN={PROGRAMS}/sheath RUST_TEST_THREADS=2 && \
             target/debug/deps/scenarios {} 2>&1",
            self.accel.slowness(),
            names.join(" ")
        );
        let ended = self.machine.run(&script, LONG);
        // A name that nothing has would be a test that cannot fail.
        let were_all = names.iter().all(|name| is_there(&ended.stdout, name));
        assert!(ended.success() && were_all, "{names:?}: {ended:?}\n{}", ended.stdout);
        String::new()
    }
}

/// Whether a scenario of that name was run.
fn is_there(stdout: &str, name: &str) -> bool {
    stdout.lines().filter_map(|line| line.strip_prefix("test ")).any(|line| line.contains(name))
}
