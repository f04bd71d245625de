//! The threads that carry flows: one for each core, each with a runtime of its own. All work on a flow is done on one core, and
//! no thread hands it to another.
//!
//! A flow stays on the thread that accepted it, unless that has more flows than others.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

thread_local! {
    /// The number of this thread among the workers, if it is one.
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
    /// Flows that it carries.
    load: Arc<AtomicUsize>,
}

/// The share of a worker that one flow takes, for as long as this lives.
#[derive(Debug)]
pub struct FlowSlot {
    /// Of the thread that is to carry the flow.
    pub runtime: Handle,
    /// That is not the thread that asked for the slot.
    is_elsewhere: bool,
    load: Arc<AtomicUsize>,
}

impl FlowSlot {
    /// Registers a connection with this slot's thread, which must be the calling one.
    ///
    /// # Errors
    /// If the runtime refuses the descriptor.
    pub fn adopt(&self, stream: TcpStream) -> io::Result<TcpStream> {
        if self.is_elsewhere { TcpStream::from_std(stream.into_std()?) } else { Ok(stream) }
    }
}

impl Drop for FlowSlot {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Relaxed);
    }
}

impl Workers {
    /// Starts `count` of them.
    ///
    /// # Errors
    /// If a thread, or its runtime, cannot be started.
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

    /// The next worker in turn, for a task that lasts as long as the agent.
    #[must_use]
    pub fn next(&self) -> &Handle {
        let number = self.next.fetch_add(1, Relaxed) % self.all.len();
        &self.all[number].runtime
    }

    /// Runs `what` once on each thread.
    pub fn each(&self, what: fn()) {
        for worker in &self.all {
            worker.runtime.spawn(async move { what() });
        }
    }

    /// Completes when every thread has answered: none of them hangs.
    pub fn all_answer(&self) -> impl Future<Output = ()> + use<> {
        let asked: Vec<_> = self.all.iter().map(|worker| worker.runtime.spawn(async {})).collect();
        async move {
            for answer in asked {
                let _ = answer.await;
            }
        }
    }

    /// A slot for a flow that was accepted on this thread.
    #[must_use]
    pub fn slot(&self) -> FlowSlot {
        let load = |number: &usize| self.all[*number].load.load(Relaxed);
        let own = OWN.get();
        let idlest = (0..self.all.len()).min_by_key(load).unwrap_or_default();
        // Moving a flow costs more than waiting for one other.
        let number = own.filter(|own| load(own) <= load(&idlest) + 1).unwrap_or(idlest);
        let worker = &self.all[number];
        worker.load.fetch_add(1, Relaxed);
        FlowSlot {
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
        let slots = |count: usize| -> Vec<FlowSlot> {
            std::iter::repeat_with(|| workers.slot()).take(count).collect()
        };
        // From outside, evenly.
        let held = slots(10);
        let loads = || -> Vec<usize> {
            workers.all.iter().map(|worker| worker.load.load(Relaxed)).collect()
        };
        assert_eq!(loads(), [5, 5]);
        drop(held);
        OWN.set(Some(0));
        let first = workers.slot();
        assert!(!first.is_elsewhere);
        let second = workers.slot();
        assert!(!second.is_elsewhere);
        // From here on it would not be even.
        let third = workers.slot();
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
        let slot = workers.slot();
        slot.runtime.spawn(async move { sender.send(OWN.get()) });
        assert_eq!(receiver.recv().unwrap(), Some(0));
    }
}
