//! A virtual machine: a QEMU process, killed when dropped.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::channel::{Channel, Running};
use super::protocol::{Ended, PORT};
use super::qemu::{Acceleration, Qemu, command};
use super::{Images, Kernel};
use crate::wait;

/// Parameters of every kernel. Nothing waits for a person, and messages are for whoever looks at a failure.
const PARAMETERS: &str = "console=ttyS0 loglevel=5 net.ifnames=0 mitigations=off nokaslr no5lvl \
     random.trust_cpu=on panic=0 systemd.show_status=false systemd.firstboot=off";

/// How long an emulated machine may take until it can be asked something.
const BOOT: Duration = Duration::from_secs(300);

/// How long something short may take: an agent starts in ten seconds of an emulated processor, which others may use as well.
pub const SHORT: Duration = Duration::from_secs(240);

/// How much of each log a failure shows, in lines.
const TOLD: usize = 60;

/// What a machine is to be.
#[derive(Clone)]
pub struct Plan {
    /// Its host name.
    pub name: &'static str,
    /// The last part of its addresses' networks, where it has a network: the path of a [`super::wire::Wire`]'s end.
    pub wire: Option<(u8, PathBuf)>,
    pub memory_mib: u32,
    pub processors: u32,
}

/// A running machine.
pub struct Machine {
    name: &'static str,
    qemu: Qemu,
    monitor: ChildStdin,
    channel: Channel,
    console: PathBuf,
    errors: PathBuf,
    _dir: TempDir,
}

impl Machine {
    /// Starts a machine; [`Self::wait_up`] waits until it can be asked something.
    ///
    /// # Panics
    /// When QEMU does not start.
    pub fn start(images: &Images, kernel: &Kernel, accel: Acceleration, plan: &Plan) -> Self {
        let dir = tempfile::Builder::new().prefix("sheath-vm-").tempdir().expect("a directory");
        let (console, errors) = (dir.path().join("console"), dir.path().join("errors"));
        let socket = dir.path().join("guest");
        let listener = UnixListener::bind(&socket).expect("a socket for the machine");
        let mut command = command(kernel, accel, &console);
        command.args(["-name", plan.name, "-m", &plan.memory_mib.to_string(), "-monitor", "stdio"]);
        command.args(["-smp", &plan.processors.to_string()]);
        let modules = kernel.dir.join("modules.ext4");
        // What is written goes to a file without a name. It survives a reset, as on a disk.
        disk(&mut command, "root", &images.root, "snapshot=on,cache=unsafe");
        disk(&mut command, "modules", &modules, "readonly=on");
        disk(&mut command, "programs", &images.programs, "readonly=on");
        command.arg("-chardev").arg(format!("socket,id=guest,path={}", socket.display()));
        command.args(["-device", "virtio-serial-pci", "-device"]);
        command.arg(format!("virtserialport,chardev=guest,name={PORT}"));
        let mut parameters = format!("{PARAMETERS} systemd.hostname={}", plan.name);
        if let Some((number, wire)) = &plan.wire {
            let wire = wire.display();
            command.arg("-netdev");
            command.arg(format!("stream,id=wire,server=off,addr.type=unix,addr.path={wire}"));
            command.arg("-device");
            command.arg(format!(
                "virtio-net-pci,netdev=wire,mac=52:54:00:00:00:{number:02x},romfile="
            ));
            parameters.push_str(&format!(" sheath.number={number}"));
        }
        command.args(["-append", &parameters]).stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(File::create(&errors).expect("a file for what QEMU says"));
        let mut qemu = Qemu::spawn(&mut command);
        let monitor = qemu.stdin();
        let stream = accept(&listener, &mut qemu, &errors);
        let channel = Channel::new(stream);
        Self { name: plan.name, qemu, monitor, channel, console, errors, _dir: dir }
    }

    /// Waits until the machine can be asked something; returns how long that took.
    #[track_caller]
    pub fn wait_up(&mut self) -> Duration {
        self.wait_boot(1)
    }

    #[track_caller]
    fn wait_boot(&mut self, count: u64) -> Duration {
        let start = Instant::now();
        let up = wait::try_for(BOOT, || {
            self.assert_alive();
            (self.channel.boots() >= count).then_some(())
        });
        assert!(up.is_some(), "{} does not boot within {BOOT:?}:\n{}", self.name, self.console());
        start.elapsed()
    }

    /// Takes the machine's power away and gives it back at once: nothing is written that was not, nobody is asked.
    /// Returns when it can be asked something again.
    #[track_caller]
    pub fn power_cycle(&mut self) -> Duration {
        let boots = self.channel.boots();
        self.monitor.write_all(b"system_reset\n").expect("QEMU's monitor");
        self.wait_boot(boots + 1)
    }

    /// Waits until everything has been started that is started at boot.
    #[track_caller]
    pub fn wait_running(&mut self) {
        let state = self.run("systemctl is-system-running --wait", BOOT).stdout;
        assert_eq!(state.trim(), "running", "{}", self.run("systemctl --failed", SHORT).stdout);
    }

    /// Runs a script, which may fail.
    #[track_caller]
    pub fn run(&mut self, script: &str, limit: Duration) -> Ended {
        let running = self.begin(script, limit);
        self.end(&running)
    }

    /// Runs a script that must succeed; returns what it has said, without spaces at the ends.
    #[track_caller]
    pub fn must(&mut self, script: &str) -> String {
        let ended = self.run(script, SHORT);
        assert!(ended.success(), "on {}:\n{script}\n{ended:?}", self.name);
        ended.stdout.trim().to_owned()
    }

    /// Begins a script.
    #[track_caller]
    pub fn begin(&mut self, script: &str, limit: Duration) -> Running {
        self.assert_alive();
        self.channel.start(script, limit)
    }

    /// Waits for the end of a script.
    #[track_caller]
    pub fn end(&mut self, running: &Running) -> Ended {
        let ended = wait::try_for(running.limit(), || {
            self.assert_alive();
            self.channel.take(running)
        });
        ended.unwrap_or_else(|| panic!("{} does not answer:\n{}", self.name, self.console()))
    }

    /// Writes a file, of text.
    #[track_caller]
    pub fn write(&mut self, path: &str, text: &str) {
        const END: &str = "END-OF-THE-FILE";
        let text = text.trim_end_matches('\n');
        self.must(&format!("mkdir -p $(dirname {path}) && cat >{path} <<'{END}'\n{text}\n{END}"));
    }

    /// Waits until a script succeeds.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, script: &str) -> String {
        let mut last = Ended::default();
        let done = wait::try_for(SHORT, || {
            last = self.run(script, SHORT);
            last.success().then(|| last.stdout.trim().to_owned())
        });
        done.unwrap_or_else(|| panic!("{what} on {}: not within {SHORT:?}: {last:?}", self.name))
    }

    /// The last lines of what the kernel has said on its serial line.
    pub fn console(&self) -> String {
        tail(&String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()))
    }

    #[track_caller]
    fn assert_alive(&mut self) {
        if let Some(status) = self.qemu.ended() {
            let said = fs::read_to_string(&self.errors).unwrap_or_default();
            panic!("{}: QEMU has ended with {status}: {said}\n{}", self.name, self.console());
        }
    }

    /// Prints what a failure's cause may be read from: the kernel's log and the journal.
    pub fn tell(&self) {
        let name = self.name;
        eprintln!("--- {name}: serial line\n{}", self.console());
        const SCRIPT: &str = "dmesg --level emerg,alert,crit,err,warn | tail -40; echo --- journal; \
             journalctl --boot --no-pager --lines 150; echo --- units; systemctl --failed --no-pager; systemctl list-jobs --no-pager";
        let limit = Duration::from_secs(30);
        let running = self.channel.start(SCRIPT, limit);
        match wait::uninterrupted(running.limit(), || self.channel.take(&running)) {
            Some(ended) => eprintln!("--- {name}: kernel log\n{}", ended.stdout),
            None => eprintln!("--- {name} does not answer"),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let is_alive = self.qemu.ended().is_none() && self.channel.boots() > 0;
        if thread::panicking() && !wait::is_interrupted() && is_alive {
            self.tell();
        }
    }
}

fn disk(command: &mut Command, id: &str, file: &Path, options: &str) {
    command.arg("-drive");
    command.arg(format!("if=none,id={id},format=raw,file={},{options}", file.display()));
    command.args(["-device", &format!("virtio-blk-pci,drive={id}")]);
}

/// Waits for QEMU at a socket.
#[track_caller]
fn accept(listener: &UnixListener, qemu: &mut Qemu, errors: &Path) -> UnixStream {
    const LIMIT: Duration = Duration::from_secs(30);
    listener.set_nonblocking(true).expect("a socket that does not block");
    let stream = wait::wait_for("QEMU", LIMIT, || {
        if let Some(status) = qemu.ended() {
            let said = fs::read_to_string(errors).unwrap_or_default();
            panic!("QEMU has ended with {status}: {said}");
        }
        listener.accept().ok()
    });
    stream.0.set_nonblocking(false).expect("a stream that blocks");
    stream.0
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TOLD)..].join("\n")
}
