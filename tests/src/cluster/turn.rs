//! The turn of a cluster: one scenario does something in it at a time, from its first object to the end of its last pod.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Cluster;
use crate::wait;

/// As many lines are told of each thing that failed.
const TOLD: usize = 40;

/// For the end of hundreds of pods on a busy machine, and between two looks.
const LIMIT: Duration = Duration::from_secs(240);
const PAUSE: Duration = Duration::from_millis(500);

/// The right to do something in a cluster, and to have it to oneself meanwhile. Whatever changes it takes one as a proof. Take it
/// first: what is declared later is dropped before it, and its end is the end of everything.
pub struct Turn<'c> {
    pub cluster: &'c Cluster,
    /// They go with it.
    namespaces: Mutex<Vec<String>>,
    told: Once,
    begun: Instant,
    _alone: MutexGuard<'static, ()>,
}

impl<'c> Turn<'c> {
    /// Waits for it.
    pub fn take(cluster: &'c Cluster) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        remember_panics();
        let alone = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            cluster,
            namespaces: Mutex::default(),
            told: Once::new(),
            begun: Instant::now(),
            _alone: alone,
        }
    }

    /// Has the pods of a namespace end with the turn, and the namespace soon after, whoever makes it.
    pub fn own(&self, namespace: &str) {
        self.namespaces().push(namespace.to_owned());
    }

    /// Tells how the namespaces are, if the scenario fails. Whoever takes something apart that matters to their pods calls this
    /// before; the first call counts.
    pub fn tell(&self) {
        if thread::panicking() {
            self.told.call_once(|| {
                for namespace in self.namespaces().iter() {
                    eprintln!("--- {}", self.told_of(namespace));
                }
            });
        }
    }

    fn told_of(&self, namespace: &str) -> String {
        let space = format!("--namespace={namespace}");
        let ask = |what: &[&str]| {
            let what = what.iter().copied().chain([&*space, "--request-timeout=10s"]);
            let said =
                self.cluster.kubectl().run(what).unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<_> = said.lines().collect();
            lines[lines.len().saturating_sub(TOLD)..].join("\n")
        };
        let pods = ask(&["get", "pods", "--output=wide"]);
        let events = ask(&["get", "events", "--sort-by=.lastTimestamp"]);
        format!("pods of {namespace}\n{pods}\n--- events of {namespace}\n{events}")
    }

    /// Deletes the namespaces, and waits for the end of their pods, which have a second left, whatever they were promised. What is
    /// left then is names: for five seconds, the cluster looks after none of them.
    fn remove(&self, namespaces: &[String]) -> Result<()> {
        let kubectl = self.cluster.kubectl();
        let names = || namespaces.iter().map(String::as_str);
        // From then on nothing is made in them.
        kubectl.run(
            ["delete", "namespace", "--ignore-not-found", "--wait=false"]
                .into_iter()
                .chain(names()),
        )?;
        for namespace in namespaces {
            // All at once: kubectl itself would delete five in a second.
            let pods = format!("/api/v1/namespaces/{namespace}/pods?gracePeriodSeconds=1");
            kubectl.run(["delete", "--raw", &pods])?;
        }
        let are_gone = |namespace: &String| {
            let space = format!("--namespace={namespace}");
            let left = kubectl.run(["get", "pods", "--output=name", &space]);
            left.is_ok_and(|names| names.is_empty())
        };
        let gone = wait::uninterrupted(LIMIT, || {
            let are_gone = namespaces.iter().all(are_gone);
            if !are_gone {
                thread::sleep(PAUSE);
            }
            are_gone.then_some(())
        });
        ensure!(gone.is_some(), "pods of {} are left", namespaces.join(" and "));
        Ok(())
    }

    fn namespaces(&self) -> MutexGuard<'_, Vec<String>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.tell();
        let namespaces = std::mem::take(&mut *self.namespaces());
        if namespaces.is_empty() {
            return;
        }
        let played = self.begun.elapsed();
        if let Err(error) = self.remove(&namespaces) {
            eprintln!("error: {error:#}");
        }
        let removed = self.begun.elapsed() - played;
        eprintln!("--- {played:.0?} in the cluster, {removed:.0?} more until its pods were gone");
        if thread::panicking() {
            // Logs have come after it.
            eprintln!("--- what failed: {}", LAST_PANIC.with_borrow(String::clone));
        }
    }
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What panics say is told once more at the end of a turn.
fn remember_panics() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A thread that ends may have none any more.
            let _ = LAST_PANIC.try_with(|last| last.replace(panic.to_string()));
            earlier(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_has_said_is_remembered() {
        remember_panics();
        let fails = || assert_eq!(1, 2, "the cause");
        assert!(std::panic::catch_unwind(fails).is_err());
        let said = LAST_PANIC.with_borrow(String::clone);
        assert!(said.contains("the cause") && said.contains("turn.rs"), "{said}");
    }
}
