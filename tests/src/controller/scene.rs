//! What the scenarios of the controller have in common.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Caller, Controller};
use crate::api_server::{ApiServer, Kind};
use crate::netns::NetNs;
use crate::wait::{self, GENEROUS};

/// A cluster with an API server, and agents of two nodes.
pub struct Scene {
    pub api: ApiServer,
    pub netns: Arc<NetNs>,
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Scene {
    pub fn new() -> Self {
        let netns = Arc::new(NetNs::new());
        let api = ApiServer::start(&netns);
        for node in ["node-a", "node-b"] {
            super::know_agent(&api, node, &format!("token of {node}"));
        }
        Self { api, netns }
    }

    /// A replica that may lead or not.
    pub fn controller(&self, name: &str) -> Controller {
        Controller::start(&self.api, &self.netns, name, |_| {})
    }

    /// A controller that leads and has its CA.
    #[track_caller]
    pub fn leader(&self) -> Controller {
        let controller = self.controller("one");
        self.wait_ready(&controller);
        controller
    }

    /// Waits until a replica leads and has its CA.
    #[track_caller]
    pub fn wait_ready(&self, controller: &Controller) {
        super::wait_leads(&self.api, controller);
        super::wait_roots(&self.api);
        let agent = self.agent(controller, "token of node-a");
        wait::wait_until("roots are told", GENEROUS, || agent.roots().is_ok());
    }

    /// Whoever has this token.
    #[track_caller]
    pub fn agent(&self, controller: &Controller, token: &str) -> Caller {
        wait::wait_for("a connection", GENEROUS, || {
            Caller::connect(&self.netns, controller.address(), Some(token)).ok()
        })
    }

    /// A pod on the node a; its uid.
    pub fn pod(&self, number: u32, change: impl FnOnce(&mut Value)) -> String {
        let uid = format!("00000000-0000-4000-8000-{number:012}");
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": format!("web-{number}"), "uid": uid},
            "spec": {"nodeName": "node-a", "serviceAccountName": "web", "containers": []},
            "status": {"phase": "Running"},
        });
        change(&mut pod);
        self.api.put(Kind::Pod, pod);
        uid
    }
}
