//! Following the controller's directory, where there is a controller.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::control::{DirectoryViews, Follower, FollowerSettings, Keeper, Memory, Observing};
use crate::controller_api::{Link, LinkSettings};
use crate::directory::Directory;
use crate::follow::Backoff;
use crate::published::Published;
use crate::services::{Catalogue, Node};

/// Pauses between attempts to follow the directory. A new leader waits for agents, but not for long.
const FOLLOW_FIRST: Duration = Duration::from_millis(250);
const FOLLOW_LONGEST: Duration = Duration::from_secs(4);

/// The directory, as it was known last, and what it takes to follow it.
pub struct Following {
    settings: FollowerSettings,
    views: DirectoryViews,
}

impl Following {
    /// Puts the directory in force that an earlier run has known; without one, every address is one that the controller has to
    /// tell of.
    pub fn prepare(
        link: LinkSettings,
        config: &Config,
        published: &Published,
        provider: &Arc<CryptoProvider>,
    ) -> Self {
        let trust_domain = link.spiffe_id.trust_domain().clone();
        let memory = Memory::new(config.instance.directory_state(), trust_domain.clone());
        let services = published.services.services();
        let mut catalogue = Catalogue::new(Node::default(), services.clone())
            .bypassing(config.bypassed_services.clone());
        let known = memory.recall().map(|(known, services)| {
            catalogue.apply(services);
            known.complete_with(&Directory::default(), catalogue.all_ports()).0
        });
        published.directory.publish(known.unwrap_or_else(Directory::unknown));
        let views = DirectoryViews::new(published.directory.clone(), services);
        let link = Arc::new(Link::new(link, provider.clone()));
        let backoff = Backoff::between(provider.secure_random, FOLLOW_FIRST, FOLLOW_LONGEST);
        Self {
            settings: FollowerSettings { link, trust_domain, memory, backoff, catalogue },
            views,
        }
    }

    pub fn views(&self) -> DirectoryViews {
        self.views.clone()
    }

    /// The way to the controller.
    pub fn link(&self) -> Arc<Link> {
        self.settings.link.clone()
    }

    /// Follows, by these tasks.
    pub fn begin(self, observing: Observing, keeper: Keeper) -> [JoinHandle<()>; 2] {
        let (told, observed) = watch::channel(None);
        let follower = Follower::new(self.settings, keeper, self.views);
        [tokio::spawn(observing.run(told)), tokio::spawn(follower.run(observed))]
    }
}
