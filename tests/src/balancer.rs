//! Something on the way that leads connections elsewhere, byte for byte: a load balancer, or an attacker in the path.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::netns::NetNs;

/// Takes connections at one address, and leads them to each of others in turn. Dropping it stops it.
pub struct Balancer {
    backends: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Balancer {
    pub fn start(netns: &Arc<NetNs>, listen: SocketAddr, backends: &[SocketAddr]) -> Self {
        let listener = netns.listen(listen);
        listener.set_nonblocking(true).expect("a listener that can be stopped");
        let backends = Arc::new(Mutex::new(backends.to_vec()));
        let stop = Arc::new(AtomicBool::new(false));
        let accepting = thread::spawn({
            let (netns, backends, stop) = (netns.clone(), backends.clone(), stop.clone());
            move || {
                netns.enter();
                while !stop.load(Ordering::Relaxed) {
                    let Ok((client, _)) = listener.accept() else {
                        thread::sleep(Duration::from_millis(2));
                        continue;
                    };
                    let backend = {
                        let mut backends = backends.lock().unwrap();
                        backends.rotate_left(1);
                        *backends.last().unwrap()
                    };
                    client.set_nonblocking(false).expect("a blocking socket");
                    if let Ok(server) = TcpStream::connect(backend) {
                        join(client, server);
                    }
                }
            }
        });
        Self { backends, stop, accepting: Some(accepting) }
    }

    /// Leads to these from the next connection on, the first of them first.
    pub fn lead_to(&self, backends: &[SocketAddr]) {
        *self.backends.lock().unwrap() = backends.to_vec();
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Copies both ways until both have ended. The threads end with the connections.
fn join(client: TcpStream, server: TcpStream) {
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || {
            if copy(&from, &to).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            }
        });
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        match from.read(&mut bytes)? {
            0 => return to.shutdown(Shutdown::Write),
            read => to.write_all(&bytes[..read])?,
        }
    }
}
