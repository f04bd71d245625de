//! The plugin stays installed: networks' configurations are rewritten by whoever made them, for example when the cluster's network
//! plugin is upgraded, and an entry that is gone is a gate that stands open.

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::cni::{Change, InstallError, Installation, PLUGIN};
use super::status::CniStatus;
use crate::sys::watch::Watch;

/// Installs the plugin, to ask the agent at `socket`, and again whenever it is not installed any more. Never ends.
pub async fn keep(installation: Installation, socket: PathBuf, status: watch::Sender<CniStatus>) {
    let Installation { conf_dir, bin_dir } = &installation;
    let mut changes = Watch::new([conf_dir.join(PLUGIN), bin_dir.join(PLUGIN)]);
    loop {
        let (to, socket) = (installation.clone(), socket.clone());
        let installing = move || to.install(Path::new("/proc/self/exe"), &socket, &[]);
        match tokio::task::spawn_blocking(installing).await {
            Ok(done) => note(done, &status),
            // It has panicked, or the runtime ends.
            Err(_) => return,
        }
        changes.changed().await;
    }
}

fn note(done: Result<Vec<Change>, InstallError>, status: &watch::Sender<CniStatus>) {
    let problem = match done {
        Ok(changes) => {
            for Change { path, done } in changes {
                tracing::info!(path = %path.display(), "the gate's plugin: {done} it");
            }
            String::new()
        }
        Err(error) => error.to_string(),
    };
    status.send_modify(|status| {
        if !problem.is_empty() && status.problem.as_deref() != Some(&problem) {
            tracing::warn!(
                problem,
                "the gate's plugin is not installed; pods start without the agent being asked"
            );
        }
        status.installed = problem.is_empty();
        status.problem = Some(problem).filter(|problem| !problem.is_empty());
    });
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    const NETWORK: &str =
        r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}]}"#;

    #[tokio::test]
    async fn it_is_installed_again_whenever_somebody_takes_it_away() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        for name in ["net.d", "bin"] {
            fs::create_dir(place(name)).unwrap();
        }
        let installation = Installation { conf_dir: place("net.d"), bin_dir: place("bin") };
        let (sender, mut status) = watch::channel(CniStatus::default());
        let keeping = tokio::spawn(keep(installation, "/run/gate.sock".into(), sender));
        let limit = Duration::from_secs(30);
        let mut until = async |is_so: fn(&CniStatus) -> bool| {
            tokio::time::timeout(limit, status.wait_for(is_so)).await.unwrap().unwrap();
        };
        until(|status| status.problem.as_deref().is_some_and(|text| text.contains("no network")))
            .await;
        let conflist = place("net.d/10-pods.conflist");
        for _ in 0..2 {
            fs::write(&conflist, NETWORK).unwrap();
            tokio::time::timeout(limit, async {
                while !fs::read_to_string(&conflist).unwrap().contains(PLUGIN) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .unwrap();
        }
        until(|status| status.installed && status.problem.is_none()).await;
        fs::remove_file(place("bin").join(PLUGIN)).unwrap();
        tokio::time::timeout(limit, async {
            while !place("bin").join(PLUGIN).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        keeping.abort();
    }
}
