//! Processes that are nobody's children here.
//!
//! A launcher starts the program, says which process that is, and ends when it was heard. The process is an orphan from then
//! on, and goes to the service manager (PR_SET_CHILD_SUBREAPER(2const)), as with a daemon that forks twice (daemon(7)).

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::pidfd::PidFd;

/// The program of this process, whatever has become of its file: a launcher of the same version.
const THIS: &str = "/proc/self/exe";

/// Bytes of an answer: a number in decimal digits, and the end of its line.
const LONGEST: u64 = 16;

/// Starts a program's file with arguments, under a name. See [`launched`].
pub type Start = fn(name: &Path, file: &Path, arguments: &[OsString]) -> io::Result<(u32, PidFd)>;

/// Has `sheath launch` start a program. Returns the process when its launcher has ended. Blocks until then; needs a tokio runtime.
///
/// # Errors
/// If the launcher or the program cannot be started.
pub fn launched(name: &Path, file: &Path, arguments: &[OsString]) -> io::Result<(u32, PidFd)> {
    let mut launcher = Command::new(THIS);
    launcher.arg("launch").args([name, file]).args(arguments);
    // It names this process (sd_watchdog_enabled(3)).
    launcher.env_remove("WATCHDOG_PID");
    launched_by(launcher)
}

fn launched_by(mut launcher: Command) -> io::Result<(u32, PidFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    launcher.stdin(Stdio::from(OwnedFd::from(theirs)));
    let mut process = launcher.spawn()?;
    // What holds the launcher's end open goes with it.
    drop(launcher);
    let started = started(ours);
    process.wait()?;
    started
}

/// The process that a launcher has started. The launcher ends afterwards.
fn started(channel: UnixStream) -> io::Result<(u32, PidFd)> {
    let pid = answer(&channel)?;
    // Until the launcher is told to end, the number means this process, also when that is over already.
    Ok((pid, PidFd::open(pid)?))
}

/// What the launcher says: a process, or the error by its number, which is negative then.
fn answer(channel: &UnixStream) -> io::Result<u32> {
    let mut line = String::new();
    BufReader::new(channel.take(LONGEST)).read_line(&mut line)?;
    match line.trim_end().parse::<i32>() {
        Ok(errno) if errno < 0 => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
        Ok(pid) => u32::try_from(pid).map_err(io::Error::other),
        Err(_) => Err(io::Error::other("its launcher has ended without an answer")),
    }
}

/// What a launcher does: it starts a program, with whoever waits for the answer on stdin. Returns when it was heard.
///
/// # Errors
/// If nobody is there to be answered.
pub fn launch(name: &OsStr, file: &Path, arguments: &[OsString]) -> io::Result<()> {
    let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    launch_for(channel, name, file, arguments)
}

fn launch_for(
    mut channel: UnixStream,
    name: &OsStr,
    file: &Path,
    arguments: &[OsString],
) -> io::Result<()> {
    let mut program = Command::new(file);
    program.arg0(name).args(arguments).stdin(Stdio::null());
    let answer = match program.spawn() {
        // Not waited for: it is to outlive this process.
        Ok(child) => i64::from(child.id()),
        Err(error) => -i64::from(error.raw_os_error().unwrap_or(libc::EIO)),
    };
    writeln!(channel, "{answer}")?;
    channel.read_to_end(&mut Vec::new())?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::thread;

    use super::*;

    /// As [`launched`], without a process for the launcher. Its child is this process's, and stays a zombie when it ends.
    pub fn launched_by_a_thread(
        name: &Path,
        file: &Path,
        arguments: &[OsString],
    ) -> io::Result<(u32, PidFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        thread::scope(|scope| {
            let launching = scope.spawn(|| launch_for(theirs, name.as_os_str(), file, arguments));
            let started = started(ours);
            launching.join().unwrap().unwrap();
            started
        })
    }

    #[tokio::test]
    async fn a_program_is_named_by_its_process() {
        let directory = tempfile::tempdir().unwrap();
        let said = directory.path().join("said");
        let script = format!("echo $$ $0 $1 >{}", said.display());
        let arguments = ["-c", &script, "zero", "one"].map(OsString::from);
        let (pid, process) =
            launched_by_a_thread("name".as_ref(), "/bin/sh".as_ref(), &arguments).unwrap();
        process.ended().await;
        assert_eq!(std::fs::read_to_string(said).unwrap(), format!("{pid} zero one\n"));
    }

    #[test]
    fn a_launcher_ends_when_it_was_heard() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let launching =
            thread::spawn(move || launch_for(theirs, "true".as_ref(), "/bin/true".as_ref(), &[]));
        answer(&ours).unwrap();
        assert!(!launching.is_finished());
        drop(ours);
        launching.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_why() {
        let missing = Path::new("/no/such/program");
        let error = launched_by_a_thread(missing, missing, &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_launcher_that_does_not_answer_is_an_error() {
        for script in ["exit 0", "echo nonsense >&0", "echo 0 >&0", "head -c 100 /dev/zero >&0"] {
            let mut launcher = Command::new("/bin/sh");
            launcher.args(["-c", script]);
            assert!(launched_by(launcher).is_err(), "{script}");
        }
        let missing = launched_by(Command::new("/no/such/launcher")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
