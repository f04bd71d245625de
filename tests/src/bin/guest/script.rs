//! Runs a script to its end, or to the end of its time.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sheath_tests::vm::protocol::Ended;

/// The end of what a program says is kept, up to so many bytes.
const KEPT: usize = 1 << 20;

/// What a script has left running may still hold its output.
const LINGER: Duration = Duration::from_millis(300);

const STEP: Duration = Duration::from_millis(20);

/// Runs a script in a process group of its own, and kills that after `limit`.
pub fn run(script: &str, limit: Duration) -> Ended {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => wait(child, limit),
        Err(error) => Ended { stderr: format!("sh: {error}"), ..Ended::default() },
    }
}

fn wait(mut child: Child, limit: Duration) -> Ended {
    let (stdout, stderr) = (Output::of(child.stdout.take()), Output::of(child.stderr.take()));
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.code().or(status.signal().map(|signal| 128 + signal)),
            Ok(None) if Instant::now() < deadline => thread::sleep(STEP),
            Ok(None) | Err(_) => {
                if let Ok(group) = i32::try_from(child.id()) {
                    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                }
                let _ = child.wait();
                break None;
            }
        }
    };
    let deadline = Instant::now() + LINGER;
    while !(stdout.is_over() && stderr.is_over()) && Instant::now() < deadline {
        thread::sleep(STEP);
    }
    Ended { status, stdout: stdout.text(), stderr: stderr.text() }
}

/// What has come from a pipe so far, and whether it is over.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<(Vec<u8>, bool)>>);

impl Output {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let output = Self::default();
        if let Some(mut pipe) = pipe {
            let output = output.clone();
            thread::spawn(move || {
                let mut buffer = [0; 16 * 1024];
                while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                    let kept = &mut output.0.lock().unwrap().0;
                    kept.extend_from_slice(&buffer[..length]);
                    let surplus = kept.len().saturating_sub(KEPT);
                    kept.drain(..surplus);
                }
                output.0.lock().unwrap().1 = true;
            });
        }
        output
    }

    fn is_over(&self) -> bool {
        self.0.lock().unwrap().1
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().0).into_owned()
    }
}
