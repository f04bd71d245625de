//! The network between two machines: a cable outside of both, which is the tap as well.
//!
//! QEMU sends and takes each frame with its length before it, four bytes, the highest first (`-netdev stream`). A frame is recorded before it is
//! passed on. Cards without offloads send frames as they are on a real wire.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::dissect::recording::{Recorded, Recording};

/// Larger than any frame.
const LARGEST_FRAME: usize = 64 * 1024 + 256;

/// A cable with two ends.
pub struct Wire {
    dir: TempDir,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    frames: Mutex<Vec<(Duration, Arc<[u8]>)>>,
    /// Who is at each end.
    ends: [Mutex<Option<UnixStream>>; 2],
    is_over: AtomicBool,
}

impl Wire {
    /// A cable to which nothing is connected yet.
    ///
    /// # Panics
    /// When there is no room for its sockets.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("sheath-wire-").tempdir().expect("a directory");
        let shared = Arc::new(Shared::default());
        let threads = [0, 1].map(|end| {
            let listener = UnixListener::bind(place(dir.path(), end)).expect("an end of the wire");
            listener.set_nonblocking(true).expect("a socket that does not block");
            let shared = shared.clone();
            thread::spawn(move || shared.serve(end, &listener))
        });
        Self { dir, shared, threads: threads.into() }
    }

    /// The socket of an end, 0 or 1.
    pub fn end(&self, end: usize) -> PathBuf {
        place(self.dir.path(), end)
    }

    /// How many frames there were so far: the beginning of a [`Self::since`].
    pub fn mark(&self) -> usize {
        self.shared.frames.lock().unwrap().len()
    }

    /// What there was since then.
    pub fn since(&self, mark: usize) -> Recording {
        let frames = self.shared.frames.lock().unwrap();
        Recording::new(frames[mark..].iter().map(|(_, frame)| frame.clone()).collect())
    }

    /// Writes everything to a file that Wireshark reads (pcap, Ethernet, microseconds).
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut to = BufWriter::new(File::create(file)?);
        let whole = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        for field in [0xa1b2_c3d4, 0x0004_0002, 0, 0, whole(LARGEST_FRAME), 1] {
            to.write_all(&u32::to_le_bytes(field))?;
        }
        for (at, frame) in self.shared.frames.lock().unwrap().iter() {
            let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
            let length = whole(frame.len());
            for field in [seconds, at.subsec_micros(), length, length] {
                to.write_all(&field.to_le_bytes())?;
            }
            to.write_all(frame)?;
        }
        to.flush()
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorded for Wire {
    fn recording(&self) -> Recording {
        self.since(0)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        for end in &self.shared.ends {
            if let Some(stream) = &*end.lock().unwrap() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// One machine after the other at an end.
    fn serve(&self, end: usize, listener: &UnixListener) {
        while !self.is_over.load(Ordering::Acquire) {
            let Ok((stream, _)) = listener.accept() else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            // It ends with the machine at it.
            let _ = self.pass(end, stream);
            *self.ends[end].lock().unwrap() = None;
        }
    }

    fn pass(&self, end: usize, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        // A machine that reads nothing must not stop the other one.
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        *self.ends[end].lock().unwrap() = Some(stream.try_clone()?);
        let mut reader = BufReader::new(stream);
        loop {
            let mut length = [0; 4];
            reader.read_exact(&mut length)?;
            let length = u32::from_be_bytes(length) as usize;
            if length > LARGEST_FRAME {
                return Err(io::Error::other("no frame is so long"));
            }
            let mut message = vec![0; 4 + length];
            reader.read_exact(&mut message[4..])?;
            message[..4].copy_from_slice(&u32::to_be_bytes(length as u32));
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.frames.lock().unwrap().push((now, Arc::from(&message[4..])));
            let mut other = self.ends[1 - end].lock().unwrap();
            if let Some(stream) = &mut *other {
                // What was written in part cannot be read any more.
                if stream.write_all(&message).is_err() {
                    let _ = stream.shutdown(Shutdown::Both);
                    *other = None;
                }
            }
        }
    }
}

fn place(dir: &Path, end: usize) -> PathBuf {
    dir.join(format!("end-{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_at_one_end_comes_out_at_the_other_and_is_recorded() {
        let wire = Wire::new();
        let [mut one, mut other] = [0, 1].map(|end| UnixStream::connect(wire.end(end)).unwrap());
        let frame = b"\x00\x00\x00\x05hello";
        let mut read = [0; 9];
        // Nobody is at an end before it was accepted there.
        other.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mark = wire.mark();
        let arrived = crate::wait::try_for(crate::wait::GENEROUS, || {
            one.write_all(frame).unwrap();
            other.read_exact(&mut read).ok()
        });
        assert!(arrived.is_some());
        assert_eq!(&read, frame);
        let recording = wire.since(mark);
        assert!(recording.frames().iter().all(|frame| &**frame == b"hello"));
        let file = wire.dir.path().join("pcap");
        wire.save(&file).unwrap();
        let each = 16 + 5;
        assert_eq!(fs::metadata(&file).unwrap().len() as usize, 24 + each * wire.mark());
    }
}
