//! One replica leads: it signs, keeps the CA, and tells the directory. The others wait, and say who leads.

mod election;
mod lease;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1 as api;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::WatchProblem;

use election::{Election, RETRY, Record, Step};

/// Name of the Lease.
const NAME: &str = "sheath-controller";
/// How long the API server may take to answer. Less than [`election::HOLD`], so that there is a second try.
const PATIENCE: Duration = Duration::from_secs(4);

/// Where a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Another one leads, at this address if that is known; or nobody does.
    Follows(Option<SocketAddr>),
    /// This one leads, until then and no longer unless it is said again.
    Leads(Instant),
}

/// Whether this replica leads, for all who act only then.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Standing>);

impl Leadership {
    /// True if it leads at this moment. Ask right before an answer leaves.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(*self.0.borrow(), Standing::Leads(until) if Instant::now() < until)
    }

    /// The address of the replica that leads, as far as it is known and another one.
    #[must_use]
    pub fn leader(&self) -> Option<SocketAddr> {
        match *self.0.borrow() {
            Standing::Follows(leader) => leader,
            Standing::Leads(_) => None,
        }
    }

    /// Waits until it leads.
    pub async fn gained(&mut self) {
        while !self.is_held() {
            if self.0.changed().await.is_err() {
                // The process is about to end.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until it does not lead.
    pub async fn lost(&mut self) {
        loop {
            let Standing::Leads(until) = *self.0.borrow_and_update() else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {
                    if !self.is_held() {
                        return;
                    }
                }
                changed = self.0.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// For tests: leads until told otherwise.
    #[cfg(test)]
    pub fn test() -> (watch::Sender<Standing>, Self) {
        let until = Instant::now() + Duration::from_secs(3600);
        let (sender, receiver) = watch::channel(Standing::Leads(until));
        (sender, Self(receiver))
    }
}

/// A candidate.
pub struct Candidate {
    leases: Api<api::Lease>,
    own: String,
    election: Election,
    standing: watch::Sender<Standing>,
    /// Said once, not at every try.
    problem: Option<WatchProblem>,
}

impl Candidate {
    /// `pod` and `address` become its name in the Lease: `<pod>/<address>`. It must listen at the address already.
    #[must_use]
    pub fn new(client: Client, namespace: &str, pod: &str, address: SocketAddr) -> Self {
        let own = format!("{pod}/{address}");
        Self {
            leases: Api::namespaced(client, namespace),
            election: Election::new(own.clone()),
            own,
            standing: watch::Sender::new(Standing::Follows(None)),
            problem: None,
        }
    }

    #[must_use]
    pub fn leadership(&self) -> Leadership {
        Leadership(self.standing.subscribe())
    }

    /// Stands for election until `ending`, and then gives the Lease back.
    pub async fn run(mut self, ending: CancellationToken) {
        loop {
            let answered = tokio::time::timeout(PATIENCE, self.turn()).await;
            let problem = match answered {
                Ok(Ok(())) => None,
                // Somebody else was faster: the next look shows who.
                Ok(Err(WatchProblem::Refused { code: 409, .. })) => None,
                Ok(Err(problem)) => Some(problem),
                Err(_) => Some(WatchProblem::Unreachable("no answer in time".to_owned())),
            };
            if problem.is_some() && problem != self.problem {
                tracing::warn!(
                    problem = problem.as_ref().map(tracing::field::display),
                    lease = NAME,
                    "no news of the Lease"
                );
            }
            self.problem = problem;
            self.tell(None);
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = ending.cancelled() => break,
            }
        }
        let _ = tokio::time::timeout(PATIENCE, self.give_back()).await;
    }

    /// One look, and what follows from it.
    async fn turn(&mut self) -> Result<(), WatchProblem> {
        let began = Instant::now();
        let found =
            self.leases.get_opt(NAME).await.map_err(|error| WatchProblem::of_request(&error))?;
        let record = found.as_ref().map(lease::read);
        let step = self.election.look(began, record.as_ref());
        let found = match (step, found) {
            (Step::Wait, _) => {
                self.tell(record.as_ref());
                return Ok(());
            }
            (_, found) => found,
        };
        let written = lease::written(NAME, &self.own, found.as_ref(), step);
        let options = kube::api::PostParams::default();
        let writing = match step {
            Step::Make => self.leases.create(&options, &written).await,
            // With the version that was read: whoever was faster has won.
            _ => self.leases.replace(NAME, &options, &written).await,
        };
        writing.map_err(|error| WatchProblem::of_request(&error))?;
        self.election.wrote(began);
        self.tell(None);
        Ok(())
    }

    /// Says where we stand. `other` is a Lease that another holds.
    fn tell(&self, other: Option<&Record>) {
        let is_held = |until: &Instant| Instant::now() < *until;
        let standing = match (self.election.held_until().filter(is_held), other) {
            (Some(until), _) => Standing::Leads(until),
            (None, Some(record)) => Standing::Follows(lease::address(&record.holder)),
            (None, None) => match *self.standing.borrow() {
                Standing::Follows(leader) => Standing::Follows(leader),
                Standing::Leads(_) => Standing::Follows(None),
            },
        };
        self.standing.send_if_modified(|known| {
            let is_new = *known != standing;
            let leads = |standing: &Standing| matches!(standing, Standing::Leads(_));
            match (leads(known), leads(&standing)) {
                (false, true) => tracing::info!(name = self.own, "this replica leads"),
                (true, false) => tracing::warn!(name = self.own, "this replica leads no more"),
                _ => {}
            }
            *known = standing;
            is_new
        });
    }

    /// Lets another one lead at once.
    async fn give_back(&self) -> Result<(), kube::Error> {
        let leads = matches!(*self.standing.borrow(), Standing::Leads(_));
        self.standing.send_replace(Standing::Follows(None));
        if !leads {
            return Ok(());
        }
        let Some(found) = self.leases.get_opt(NAME).await? else {
            return Ok(());
        };
        if lease::read(&found).holder == self.own {
            let free = lease::freed(found);
            self.leases.replace(NAME, &kube::api::PostParams::default(), &free).await?;
        }
        Ok(())
    }
}
