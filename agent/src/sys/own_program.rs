//! The program of this process, started once more as it is installed now: after an update that is another one.

use std::env;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::launch::{Start, launched};
use super::pidfd::PidFd;

/// Of a directory in which nobody moves or removes what is another's.
const STICKY: u32 = 0o1000;

/// Where the program is, what it was started with, and the process that was started of it last.
#[derive(Debug)]
pub struct OwnProgram {
    path: PathBuf,
    arguments: Vec<OsString>,
    start: Start,
    /// Locked while one is started: one is at a time.
    started: Mutex<Option<Arc<Started>>>,
}

#[derive(Debug)]
struct Started {
    pid: u32,
    process: PidFd,
}

impl OwnProgram {
    /// Call it when the process begins: later the file may be another one, and the kernel calls the one that is run deleted.
    ///
    /// # Errors
    /// If it is not known where the program is.
    pub fn find() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let named = arguments.next().map(PathBuf::from).filter(|path| is_run_here(path));
        // With symbolic links, where it is named so: an update may change them, and not the file.
        let path = named.map_or_else(env::current_exe, Ok)?;
        Ok(Self::new(path, arguments.collect(), launched))
    }

    fn new(path: PathBuf, arguments: Vec<OsString>, start: Start) -> Self {
        Self { path, arguments, start, started: Mutex::default() }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts it with the same arguments, and `option` if that is not among them. Returns its process id. Blocks until it runs, and
    /// needs a tokio runtime.
    ///
    /// The process is nobody's child here, but that of whoever looks after orphans, the service manager: that one has to be told
    /// of the ends of its main processes by the kernel, or it does not wait for them.
    ///
    /// # Errors
    /// `AlreadyExists` if one that was started before still runs; `PermissionDenied` if others than root could have put it there; or
    /// why it cannot be started.
    pub fn start(&self, option: &str) -> io::Result<u32> {
        let mut started = self.started();
        if let Some(other) = started.as_ref().filter(|other| other.process.is_alive()) {
            let other = format!("process {} was started for that already, and runs", other.pid);
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, other));
        }
        let file = trusted(&self.path)?;
        let mut arguments = self.arguments.clone();
        if !arguments.iter().any(|argument| argument == option) {
            arguments.push(option.into());
        }
        // By the name that this one has, by which the next one is found as well.
        let (pid, process) = (self.start)(&self.path, &file, &arguments)?;
        *started = Some(Arc::new(Started { pid, process }));
        Ok(pid)
    }

    /// Whether this process was started here, and still runs.
    #[must_use]
    pub fn has_started(&self, pid: i32) -> bool {
        let started = self.started();
        started.as_ref().is_some_and(|it| i32::try_from(it.pid) == Ok(pid) && it.process.is_alive())
    }

    /// Waits for the end of the process that was started here.
    pub async fn ended(&self) {
        let started = self.started().clone();
        if let Some(started) = started {
            started.process.ended().await;
        }
    }

    fn started(&self) -> MutexGuard<'_, Option<Arc<Started>>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this process runs the file of that name. What a process is told of its name is up to whoever starts it.
fn is_run_here(path: &Path) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    let own = fs::metadata("/proc/self/exe").ok().map(identity);
    path.is_absolute() && own.is_some() && fs::metadata(path).ok().map(identity) == own
}

/// The file that a path leads to, if nobody but root can put another one there, or there where the path begins.
fn trusted(path: &Path) -> io::Result<PathBuf> {
    let file = path.canonicalize()?;
    // A link between both that is not root's could still lead to another program of root's, and to nothing else.
    for place in file.ancestors().chain(path.ancestors().skip(1)) {
        let found = fs::metadata(place)?;
        let is_others = found.uid() != 0 || found.mode() & 0o022 != 0;
        let is_kept = found.is_dir() && found.uid() == 0 && found.mode() & STICKY != 0;
        if is_others && !is_kept {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{} belongs to the user {}, with the mode {:04o}: others than root could have put the program there; \
                     `chown root` and `chmod go-w` it, when it is known to be the right one",
                    place.display(),
                    found.uid(),
                    found.mode() & 0o7777
                ),
            ));
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use rustix::process::{Pid, Signal};

    use super::super::launch::tests::launched_by_a_thread;
    use super::*;

    fn program(path: &str, arguments: &[&str]) -> OwnProgram {
        let arguments = arguments.iter().map(OsString::from).collect();
        // Tests of units have no `sheath launch`.
        OwnProgram::new(path.into(), arguments, launched_by_a_thread)
    }

    #[tokio::test]
    async fn it_runs_with_its_arguments_and_the_option_and_its_end_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let said = directory.path().join("said");
        let script = format!(r#"shift; echo "$@" >{}"#, said.display());
        let program = program("/bin/sh", &["-c", &script, "sh", "x", "a b"]);
        let pid = program.start("--more").unwrap();
        program.ended().await;
        assert!(!program.has_started(pid.try_into().unwrap()));
        assert_eq!(std::fs::read_to_string(&said).unwrap(), "a b --more\n");
    }

    #[tokio::test]
    async fn one_runs_at_a_time_and_an_option_that_is_there_is_not_said_twice() {
        let program = program("/bin/sh", &["-c", "test $# = 1 && exec sleep 60", "sh", "--more"]);
        let pid = i32::try_from(program.start("--more").unwrap()).unwrap();
        assert!(program.has_started(pid));
        let again = program.start("--more").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists, "{again}");
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        program.ended().await;
    }

    #[tokio::test]
    async fn what_others_could_have_put_there_is_not_started() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::copy("/bin/true", inner.join("program")).unwrap();
        let linked = directory.path().join("linked");
        symlink(inner.join("program"), &linked).unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let start = || program(linked.to_str().unwrap(), &[]).start("x");
        mode(&inner, 0o755);
        mode(&inner.join("program"), 0o755);
        start().unwrap();
        // Everybody may add something, and nobody may remove what is another's.
        mode(&inner, 0o1777);
        start().unwrap();
        for (what, as_is, otherwise) in
            [("", 0o755, 0o777), ("", 0o755, 0o775), ("program", 0o755, 0o757)]
        {
            let place = inner.join(what);
            mode(&place, otherwise);
            let error = start().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{otherwise:o}: {error}");
            assert!(error.to_string().contains(inner.to_str().unwrap()), "{error}");
            mode(&place, as_is);
        }
        for place in [inner.join("program"), inner.clone(), directory.path().to_owned()] {
            chown(&place, Some(65_534), None).unwrap();
            let error = start().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().contains("user 65534"), "{error}");
            chown(&place, Some(0), None).unwrap();
        }
        start().unwrap();
    }

    #[test]
    fn a_name_counts_only_for_the_file_that_is_run() {
        let own = env::current_exe().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let linked = directory.path().join("linked");
        symlink(&own, &linked).unwrap();
        assert!(is_run_here(&own) && is_run_here(&linked));
        for other in ["/bin/sh", "/no/such/program", "sh", ""] {
            assert!(!is_run_here(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_started_says_why_and_does_not_count() {
        let program = program("/no/such/program", &[]);
        for _ in 0..2 {
            assert_eq!(program.start("x").unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
