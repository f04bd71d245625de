//! A program of the cluster that is away for a while.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Cluster, NodeName, control_plane, node, up};
use crate::wait;

/// Long enough for the API server on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A program that was killed. It is started again when this is dropped, so that whatever fails meanwhile, others have the whole cluster.
pub struct Away<'c> {
    cluster: &'c Cluster,
    what: What,
    is_back: bool,
}

#[derive(Clone, Copy)]
enum What {
    OfNode(NodeName, &'static str),
    ApiServer,
}

impl<'c> Away<'c> {
    pub(super) fn of_node(
        cluster: &'c Cluster,
        node: NodeName,
        program: &'static str,
    ) -> Result<Self> {
        cluster.node(node).crash(program)?;
        Ok(Self { cluster, what: What::OfNode(node, program), is_back: false })
    }

    pub(super) fn api_server(cluster: &'c Cluster) -> Result<Self> {
        cluster.control.crash(control_plane::API_SERVER)?;
        Ok(Self { cluster, what: What::ApiServer, is_back: false })
    }

    /// Starts it again, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start, or does not answer in time.
    pub fn end(mut self) -> Result<()> {
        self.is_back = true;
        self.start()
    }

    fn start(&self) -> Result<()> {
        let Cluster { control, state, .. } = self.cluster;
        match self.what {
            What::ApiServer => {
                control_plane::start_api_server(control, state)?;
                let kubectl = self.cluster.kubectl();
                let is_ready = || kubectl.run(["get", "--raw=/readyz"]).is_ok();
                let answers = wait::uninterrupted(LIMIT, || is_ready().then_some(()));
                ensure!(answers.is_some(), "the API server does not answer");
                Ok(())
            }
            What::OfNode(name, program) => {
                let machine = self.cluster.node(name);
                node::start(machine, program, state)?;
                if program == node::CONTAINERD { up::wait_for_containerd(machine) } else { Ok(()) }
            }
        }
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if self.is_back {
            return;
        }
        if let Err(error) = self.start() {
            eprintln!("error: a part of the cluster is away: {error:#}");
        }
    }
}
