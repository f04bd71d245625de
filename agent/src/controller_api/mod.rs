//! What the controller and the agents say to each other: the messages of `proto/`, and the agents' connection.

mod error;
mod link;
mod settings;
mod verifier;

/// Where a replica that does not lead says who does, in the metadata of its refusal: `<address>:<port>`.
pub const LEADER: &str = "sheath-leader";
/// The audience of the tokens that agents show.
pub const AUDIENCE: &str = "sheath-controller";
/// Bytes of the longest message that either side takes.
pub const LONGEST_MESSAGE: usize = 256 << 10;

pub use error::LinkError;
pub use link::{Carrier, Link};
pub use settings::{ControllerAddress, LinkSettings, NotAnAddress};

/// What `build.rs` made of the definitions.
#[allow(
    clippy::all,
    clippy::missing_errors_doc,
    missing_docs,
    reason = "nobody has written it by hand"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/controller_api.rs"));
}

/// What is wrong with pods: `proto/troubles.proto`.
pub mod troubles {
    pub use super::generated::sheath::troubles::v1::troubles_client::TroublesClient;
    pub use super::generated::sheath::troubles::v1::troubles_server::{Troubles, TroublesServer};
    pub use super::generated::sheath::troubles::v1::{Reason, TellRequest, TellResponse, Trouble};
}

/// Identities of pods: `proto/identities.proto`.
pub mod identities {
    pub use super::generated::sheath::identities::v1::identities_client::IdentitiesClient;
    pub use super::generated::sheath::identities::v1::identities_server::{
        Identities, IdentitiesServer,
    };
    pub use super::generated::sheath::identities::v1::{
        FollowRootsRequest, Roots, SignRequest, SignResponse,
    };
}

/// Services and their endpoints: `proto/services.proto`.
pub mod services {
    pub use super::generated::sheath::directory::v1::{
        Endpoint, EndpointSlice, ObjectName, Port, Service, Services, Whole,
    };
}

/// Who is at each address of the cluster: `proto/directory.proto`.
pub mod directory {
    pub use super::generated::sheath::directory::v1::directory_client::DirectoryClient;
    pub use super::generated::sheath::directory::v1::directory_server::{
        Directory, DirectoryServer,
    };
    pub use super::generated::sheath::directory::v1::{
        Begin, Delta, Entries, Entry, FollowRequest, FollowResponse, Observed, Own, Page, Position,
        Profile, Ranges, State, follow_request, follow_response,
    };
}
