//! Runs in a machine, as a service, and does what the tests ask for on a virtual serial port; see
//! [`sheath_tests::vm::protocol`].

mod script;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sheath_tests::vm::protocol::{PORT, Report, Request};

fn main() -> io::Result<()> {
    let port = OpenOptions::new().read(true).write(true).open(find()?)?;
    let writer = Arc::new(Mutex::new(port.try_clone()?));
    // What is left of the line before is ended first.
    writer.lock().unwrap().write_all(b"\n")?;
    tell(&writer, &Report::Hello)?;
    for line in BufReader::new(port).lines() {
        let Ok(request) = serde_json::from_str::<Request>(&line?) else {
            continue;
        };
        let writer = writer.clone();
        thread::spawn(move || {
            let ended = script::run(&request.script, Duration::from_millis(request.limit));
            let _ = tell(&writer, &Report::Done { id: request.id, ended });
        });
    }
    Ok(())
}

fn tell(writer: &Mutex<File>, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    writer.lock().unwrap().write_all(&line)
}

/// The device of the port that bears the tests' name.
fn find() -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no port of the tests"))
}
