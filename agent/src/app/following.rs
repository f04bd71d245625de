//! Following the controller's directory, where there is a controller.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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

    /// Begins to follow.
    pub fn begin(self, observing: Observing, keeper: Keeper) -> FollowingTasks {
        let (told, observed) = watch::channel(None);
        let over = CancellationToken::new();
        let follower = Follower::new(self.settings, keeper, self.views);
        FollowingTasks {
            observing: tokio::spawn(observing.run(told)),
            following: tokio::spawn(follower.run(observed, over.clone())),
            over,
        }
    }
}

/// What follows, until [`Self::end`].
#[derive(Debug)]
pub struct FollowingTasks {
    observing: JoinHandle<()>,
    following: JoinHandle<()>,
    over: CancellationToken,
}

impl FollowingTasks {
    /// Ends them. The file has all that is known then, for the next run or a successor.
    pub async fn end(self) {
        self.over.cancel();
        self.observing.abort();
        // Either may be at work until it has nothing more to do at once.
        let _ = tokio::join!(self.observing, self.following);
    }
}
