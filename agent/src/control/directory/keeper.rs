//! Puts a state of the directory in force, in an order in which nothing that is protected is ever left alone: the kernel turns
//! connections to the agent before the agent knows of whom to expect, and leaves some alone only when the agent knows as well.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use tokio::task::{block_in_place, yield_now};

use crate::capture::{DirectoryMaps, DirectoryStep, Maps};
use crate::directory::{Difference, Directory, KernelChange, Shared, Touched};
use crate::sessions::Sessions;

/// The only writer of the directory in force.
#[derive(Debug)]
pub struct Keeper {
    maps: Arc<Maps>,
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
    /// The kernel's map may differ from the directory in force: it is an earlier agent's, or could not be written.
    differs: bool,
}

impl Keeper {
    #[must_use]
    pub fn new(maps: Arc<Maps>, shared: Arc<Shared>, sessions: Arc<Sessions>) -> Self {
        Self { maps, shared, sessions, differs: true }
    }

    /// The directory in force.
    #[must_use]
    pub fn current(&self) -> Arc<Directory> {
        self.shared.load().clone()
    }

    /// True if something could not be written: the same again may succeed.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.differs
    }

    /// Puts a state in force, of which it is known what it changes.
    ///
    /// # Errors
    /// If the kernel's map cannot be written, for want of room for instance. What protects may be written by then, and the
    /// state before is still the one in force.
    pub async fn put_in_force(&mut self, next: Directory, touched: &Touched) -> io::Result<()> {
        let maps = self.maps.clone();
        let kernel = &maps.directory;
        let differs = std::mem::replace(&mut self.differs, true);
        let change = match differs {
            true => block_in_place(|| kernel.difference(&next))?,
            false => block_in_place(|| KernelChange::of(touched)),
        };
        // They are among all rules about prefixes, which are looked through.
        let ranges: Option<Arc<[_]>> = (differs || touched.ranges).then(|| next.ranges().into());
        if let Some(ranges) = &ranges {
            kernel.add_ranges(ranges)?;
        }
        write(kernel, &change, DirectoryStep::Protect).await?;
        self.shared.publish(next);
        let concerns = |d: &&Difference| d.is_another() || d.gains_protection();
        let others = touched.entries.iter().filter(concerns);
        let others: HashSet<_> = others.map(|difference| difference.address).collect();
        if !others.is_empty() {
            block_in_place(|| self.sessions.review_at(&others));
        }
        write(kernel, &change, DirectoryStep::Release).await?;
        if let Some(ranges) = &ranges {
            kernel.keep_ranges(ranges)?;
        }
        self.differs = false;
        Ok(())
    }
}

/// Writes one step of a change, and lets others work in between.
async fn write(
    kernel: &DirectoryMaps,
    change: &KernelChange,
    step: DirectoryStep,
) -> io::Result<()> {
    for piece in DirectoryMaps::pieces(change, step) {
        kernel.write(piece)?;
        yield_now().await;
    }
    Ok(())
}
