//! Who is at each address of the cluster: the controller's directory, as this agent knows it.
//!
//! A [`Directory`] is a value. Changes make another one, which shares with the one before what is unchanged: applying a change
//! costs as much as the change is large, and readers hold no lock. [`Shared`] is the one in force.
//!
//! Nothing of it is the agent's own finding. The controller says it, and [`Delta`] and [`Collected`] see to it that nothing is
//! left out: what does not follow on what is known is refused, and asked for as a whole.

mod change;
mod entry;
mod kernel;
mod names;
mod reader;
mod shared;
mod table;

pub use change::{Collected, Delta, Difference, NotApplicable, ServiceDifference, Touched};
pub use entry::{Entry, Ports, Standing};
pub use kernel::{KernelChange, kernel_entries};
pub use names::{Identity, Names};
pub use reader::{Read, Reader, Senseless};
pub use shared::Shared;
pub use table::{Directory, Found, Position};

#[cfg(test)]
pub(crate) mod testing;
