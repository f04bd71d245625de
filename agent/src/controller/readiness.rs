//! Whether a replica is of use to agents, and what is told of it in figures.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::authority::Authority;
use super::directory::Directories;
use super::leader::Leadership;
use crate::kubernetes::Contact;
use crate::metrics::{Label, Registry, RegistryError, Scalar};

/// What a replica is.
pub struct Readiness {
    pub leadership: Leadership,
    pub authority: Arc<Authority>,
    pub directories: Directories,
    pub contact: Contact,
}

/// What ends.
#[derive(Clone, Copy)]
enum Certificate {
    Root,
    Intermediate,
}

impl Label for Certificate {
    const NAME: &'static str = "of";
    const ALL: &'static [Self] = &[Self::Root, Self::Intermediate];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Intermediate => "intermediate",
        }
    }
}

/// What an entry of the directory says.
#[derive(Clone, Copy)]
enum Entry {
    Plain,
    Pending,
    Protected,
}

impl Label for Entry {
    const NAME: &'static str = "state";
    const ALL: &'static [Self] = &[Self::Plain, Self::Pending, Self::Protected];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Pending => "pending",
            Self::Protected => "protected",
        }
    }
}

impl Readiness {
    /// # Errors
    /// Why it is of no use.
    pub fn check(&self) -> Result<String, String> {
        if !self.leadership.is_held() {
            return match self.leadership.leader() {
                Some(leader) => Ok(format!("ok: {leader} leads")),
                None => Err("nobody leads, as far as this replica knows".to_owned()),
            };
        }
        let ca = self.authority.status();
        let problem = ca.problem.map(|problem| format!(", but: {problem}")).unwrap_or_default();
        match ca.ends {
            Some(_) => Ok(format!("ok: this replica leads{problem}")),
            None => Err(format!("this replica leads, and has no CA yet{problem}")),
        }
    }

    /// # Errors
    /// If a name is taken.
    pub fn register(self: &Arc<Self>, to: &mut Registry) -> Result<(), RegistryError> {
        use Scalar::Gauge;
        let own = || self.clone();
        let one = own();
        to.register_read(Gauge, "leads", "1 if this replica leads.", move || {
            Some(one.leadership.is_held().into())
        })?;
        let one = own();
        to.register_read(
            Gauge,
            "ready",
            "1 if this replica leads and has a CA, or knows who leads.",
            move || Some(one.check().is_ok().into()),
        )?;
        let one = own();
        to.register_read(
            Gauge,
            "ca_problem",
            "1 if something is wrong with the CA; the log says what.",
            move || Some(one.authority.status().problem.is_some().into()),
        )?;
        let one = own();
        to.register_read(Gauge, "ca_roots", "Roots that agents are told.", move || {
            Some(one.authority.status().roots as u64)
        })?;
        let one = own();
        to.register_read_by(
            Gauge,
            "ca_end_timestamp_seconds",
            "When what signs ends, in seconds since 1970.",
            move |of| {
                let (root, intermediate) = one.authority.status().ends?;
                Some(seconds(match of {
                    Certificate::Root => root,
                    Certificate::Intermediate => intermediate,
                }))
            },
        )?;
        let one = own();
        to.register_read(
            Gauge,
            "api_server_age_seconds",
            "Seconds since the API server last gave what it was asked for.",
            move || Some(one.contact.last()?.0.elapsed().as_secs()),
        )?;
        self.register_directory(to)
    }

    fn register_directory(self: &Arc<Self>, to: &mut Registry) -> Result<(), RegistryError> {
        use Scalar::Gauge;
        let one = self.clone();
        to.register_read(
            Gauge,
            "directory_sequence",
            "Changes of the directory since this replica leads.",
            move || Some(one.directories.status()?.position?.1),
        )?;
        let one = self.clone();
        to.register_read_by(
            Gauge,
            "directory_entries",
            "Addresses in the directory, by what they are.",
            move |state| {
                let entries = one.directories.status()?.entries;
                Some(match state {
                    Entry::Plain => entries.plain,
                    Entry::Pending => entries.pending,
                    Entry::Protected => entries.protected,
                } as u64)
            },
        )?;
        let one = self.clone();
        to.register_read(
            Gauge,
            "directory_nodes",
            "Nodes whose agent follows the directory.",
            move || Some(one.directories.status()?.agents as u64),
        )?;
        let one = self.clone();
        to.register_read(
            Gauge,
            "directory_history_bytes",
            "Bytes of changes that are kept for agents that were away.",
            move || Some(one.directories.status()?.history_bytes as u64),
        )
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
