//! Follows the controller's directory, and puts its states in force: in the kernel, for the data path, and for live sessions.
//!
//! [`Follower`] is when: it follows the stream, and says what is seen of this node's own pods. [`Keeper`] in which order a state is put in force, [`Memory`] what outlives the agent.

mod follower;
mod keeper;
mod memory;
mod observing;
mod view;

pub use follower::{Follower, FollowerSettings};
pub use keeper::Keeper;
pub use memory::Memory;
pub use observing::Observing;
pub use view::{DirectoryView, DirectoryViews};
