//! The threads that flows are worked on: one for each core, with a runtime of its own, so that all that happens to a
//! flow happens on one core and nothing is handed over.
//!
//! A flow stays where it was accepted, unless there are more there than elsewhere.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

thread_local! {
    /// The number of the worker that the thread is, if it is one.
    static OWN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// All workers of the agent. Their threads end with this.
#[derive(Debug)]
pub struct Workers {
    all: Vec<Worker>,
    next: AtomicUsize,
    _end: DropGuard,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Flows that are worked on here.
    load: Arc<AtomicUsize>,
}

/// A place for one flow, taken for as long as this lives.
#[derive(Debug)]
pub struct Place {
    pub runtime: Handle,
    /// It is not the thread that was asked.
    is_elsewhere: bool,
    load: Arc<AtomicUsize>,
}

impl Place {
    /// The same connection, waited on by this place's thread, which must be the calling one.
    pub fn settle(&self, stream: TcpStream) -> io::Result<TcpStream> {
        if self.is_elsewhere { TcpStream::from_std(stream.into_std()?) } else { Ok(stream) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Relaxed);
    }
}

impl Workers {
    /// Starts `count` of them.
    pub fn start(count: usize) -> io::Result<Self> {
        let end = CancellationToken::new();
        let start = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let worker = Worker { runtime: runtime.handle().clone(), load: Arc::default() };
            let end = end.clone();
            std::thread::Builder::new().name(format!("flows-{number}")).spawn(move || {
                OWN.set(Some(number));
                runtime.block_on(end.cancelled());
            })?;
            Ok(worker)
        };
        let all = (0..count.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Self { all, next: AtomicUsize::default(), _end: end.drop_guard() })
    }

    /// The worker whose turn it is, for something that lasts.
    #[must_use]
    pub fn next(&self) -> &Handle {
        let number = self.next.fetch_add(1, Relaxed) % self.all.len();
        &self.all[number].runtime
    }

    /// Has all of them do something in between.
    pub fn each(&self, what: fn()) {
        for worker in &self.all {
            worker.runtime.spawn(async move { what() });
        }
    }

    /// Done when each of them has come to it: none hangs.
    pub fn all_answer(&self) -> impl Future<Output = ()> + use<> {
        let asked: Vec<_> = self.all.iter().map(|worker| worker.runtime.spawn(async {})).collect();
        async move {
            for answer in asked {
                let _ = answer.await;
            }
        }
    }

    /// Where a flow should be worked on that begins on this thread.
    #[must_use]
    pub fn place(&self) -> Place {
        let load = |number: &usize| self.all[*number].load.load(Relaxed);
        let own = OWN.get();
        let idlest = (0..self.all.len()).min_by_key(load).unwrap_or_default();
        // To move costs more than to wait for one other.
        let number = own.filter(|own| load(own) <= load(&idlest) + 1).unwrap_or(idlest);
        let worker = &self.all[number];
        worker.load.fetch_add(1, Relaxed);
        Place {
            runtime: worker.runtime.clone(),
            is_elsewhere: own != Some(number),
            load: worker.load.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_stay_where_they_begin_while_the_load_is_even() {
        let workers = Workers::start(2).unwrap();
        let places = |count: usize| -> Vec<Place> {
            std::iter::repeat_with(|| workers.place()).take(count).collect()
        };
        // From outside, evenly.
        let held = places(10);
        let loads = || -> Vec<usize> {
            workers.all.iter().map(|worker| worker.load.load(Relaxed)).collect()
        };
        assert_eq!(loads(), [5, 5]);
        drop(held);
        OWN.set(Some(0));
        let first = workers.place();
        assert!(!first.is_elsewhere);
        let second = workers.place();
        assert!(!second.is_elsewhere);
        // From here on it would not be even.
        let third = workers.place();
        assert!(third.is_elsewhere);
        assert_eq!(loads(), [2, 1]);
        drop((first, second, third));
        assert_eq!(loads(), [0, 0]);
        OWN.set(None);
    }

    #[test]
    fn each_does_it_on_its_own_thread() {
        static DONE: AtomicUsize = AtomicUsize::new(0);
        let workers = Workers::start(2).unwrap();
        workers.each(|| {
            DONE.fetch_add(1 << OWN.get().unwrap(), Relaxed);
        });
        let start = std::time::Instant::now();
        while DONE.load(Relaxed) != 0b11 {
            assert!(start.elapsed().as_secs() < 30, "{:b}", DONE.load(Relaxed));
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_that_hangs_does_not_answer() {
        let workers = Workers::start(2).unwrap();
        let (events, seen) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let hangs = events.clone();
        workers.all[1].runtime.spawn(async move {
            let _ = released.recv();
            let _ = hangs.send("works again");
        });
        let answer = workers.all_answer();
        let waiting = std::thread::spawn(move || {
            Builder::new_current_thread().build().unwrap().block_on(answer);
            let _ = events.send("answered");
        });
        release.send(()).unwrap();
        waiting.join().unwrap();
        assert_eq!(seen.iter().collect::<Vec<_>>(), ["works again", "answered"]);
    }

    #[test]
    fn work_is_done_on_the_thread_of_its_worker() {
        let workers = Workers::start(2).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let place = workers.place();
        place.runtime.spawn(async move { sender.send(OWN.get()) });
        assert_eq!(receiver.recv().unwrap(), Some(0));
    }
}
