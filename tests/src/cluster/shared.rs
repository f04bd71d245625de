//! The cluster that the scenarios of one process share.

use std::os::unix::process::CommandExt;
use std::process::{self, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::Cluster;
use super::turn::Turn;
use crate::binaries;

/// The cluster of this process. The first one to ask brings it up, after having removed what killed runs have left. It is
/// taken down when the process ends, whichever way.
///
/// # Panics
/// When it cannot be brought up. Later calls then fail for the same reason, without another try.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    static FIRST: Mutex<()> = Mutex::new(());
    // A panic in here must not poison the others' only way to learn of it.
    let _first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = CLUSTER.get_or_init(|| {
        super::remove_orphans().map_err(|error| format!("{error:#}"))?;
        let cluster = Cluster::up(&name(), Some(process::id()));
        let cluster = cluster.map_err(|error| format!("{error:#}"))?;
        take_down_at_exit();
        Ok(cluster)
    });
    cluster.as_ref().unwrap_or_else(|error| panic!("no cluster: {error}"))
}

/// The turn of this process's cluster.
///
/// # Panics
/// When it cannot be brought up.
pub fn turn() -> Turn<'static> {
    Turn::take(cluster())
}

fn name() -> String {
    format!("t{}", process::id())
}

/// At the end of the process, and by another one if this is killed.
fn take_down_at_exit() {
    extern "C" fn take_down() {
        if let Err(error) = super::remove(&name()) {
            eprintln!("error: the cluster {} is left: {error:#}", name());
        }
    }
    // SAFETY: the function is there for as long as the process.
    let registered = unsafe { libc::atexit(take_down) };
    assert_eq!(registered, 0, "no room for another thing to do at the end");
    let mut heir = Command::new(binaries::cluster());
    heir.args(["inherit", &name()]).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    let mut heir = heir.spawn().expect("what removes the cluster of a killed process");
    // Closed by the end of this process, and by nothing else.
    std::mem::forget(heir.stdin.take());
    std::thread::spawn(move || heir.wait());
}
