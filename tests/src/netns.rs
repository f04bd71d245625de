//! Anonymous network namespaces.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;

use crate::wait::{self, GENEROUS};

/// A network namespace, alive as long as this value or a process in it.
pub struct NetNs {
    file: File,
}

impl NetNs {
    /// A new namespace with nothing but loopback, up.
    pub fn new() -> Self {
        let file = thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET)
                        .expect("a new network namespace (needs root)");
                    File::open("/proc/thread-self/ns/net").expect("the new namespace's file")
                })
                .join()
                .expect("the thread that made the namespace")
        });
        let netns = Self { file };
        // Before any link exists, so that every later address is usable at once.
        netns.sysctl("ipv6/conf/all/accept_dad", "0");
        netns.sysctl("ipv6/conf/default/accept_dad", "0");
        // Data in the first SYN, without a cookie: the sharpest form of TCP Fast Open.
        netns.sysctl("ipv4/tcp_fastopen", "1543");
        netns.ip("link set lo up");
        netns
    }

    /// Runs `work` on a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Listens at an address of this namespace. Whatever another test starts at this moment has a copy of the listener that
    /// was there before, until it becomes its program.
    #[track_caller]
    pub fn listen(&self, at: SocketAddr) -> TcpListener {
        wait::wait_for("the end of who listened before", GENEROUS, || {
            match self.run(|| TcpListener::bind(at)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
                listener => Some(listener.expect("a listener")),
            }
        })
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) {
        setns(&self.file, CloneFlags::CLONE_NEWNET).expect("entering the network namespace");
    }

    /// A command whose process enters the namespace between fork and exec, and dies with the thread that started it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let netns = self.file.try_clone().expect("a copy of the namespace's descriptor");
        let mut command = Command::new(program);
        let enter = move || -> io::Result<()> {
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: between fork and exec `enter` makes two system calls on a descriptor it owns; it neither allocates
        // nor takes a lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs `ip` commands, one per line.
    pub fn ip(&self, commands: &str) {
        self.feed("ip", &["-batch", "-"], commands);
    }

    /// Loads rules of the packet filter (nft(8)).
    pub fn nft(&self, rules: &str) {
        self.feed("nft", &["-f", "-"], rules);
    }

    /// Runs a program that reads what to do; it must succeed.
    fn feed(&self, program: &str, arguments: &[&str], text: &str) {
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} (`cargo xtask test` installs it): {error}"));
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{program}: {}\nin\n{text}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Sets `/proc/sys/net/<key>` of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.run(|| {
            fs::write(format!("/proc/sys/net/{key}"), value)
                .unwrap_or_else(|error| panic!("sysctl {key}={value}: {error}"));
        });
    }

    /// Whether something listens on a TCP port, without connecting to it.
    pub fn has_listener(&self, port: u16) -> bool {
        const LISTEN: &str = "0A";
        let suffix = format!(":{port:04X}");
        let listens = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|local| local.ends_with(&suffix))
                && fields.nth(1) == Some(LISTEN)
        };
        self.run(|| {
            ["tcp", "tcp6"].iter().any(|table| {
                let table = fs::read_to_string(format!("/proc/thread-self/net/{table}"));
                table.expect("the TCP table").lines().any(listens)
            })
        })
    }

    /// A path another process can open to reach this namespace while the harness lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Whether this namespace has an interface of that name.
    pub fn has_interface(&self, name: &str) -> bool {
        self.run(|| nix::net::if_::if_nametoindex(name).is_ok())
    }

    /// The index of an interface of this namespace.
    pub fn interface(&self, name: &str) -> u32 {
        self.run(|| nix::net::if_::if_nametoindex(name).expect("the interface's index"))
    }

    /// The inode number that names this namespace in `sheath status`.
    pub fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.file.metadata().expect("the namespace's inode").ino()
    }
}

impl From<File> for NetNs {
    /// A namespace that somebody else has made: its file in `/proc/<pid>/ns/`.
    fn from(file: File) -> Self {
        Self { file }
    }
}

impl Default for NetNs {
    fn default() -> Self {
        Self::new()
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs a command of the host's that must succeed.
pub fn must_succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
