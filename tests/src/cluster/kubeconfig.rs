//! How programs find the API server and say who they are.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;

use super::names::{API_PORT, control_plane};
use super::pki::{Pair, Pki, Subject};
use super::state::State;

/// The administrator's, in a cluster's directory.
pub const ADMIN: &str = "admin.kubeconfig";

/// Issues a certificate and writes `<file>.kubeconfig`, which names it.
///
/// # Errors
/// When that fails.
pub fn write(state: &State, pki: &Pki<'_>, file: &str, subject: Subject<'_>) -> Result<PathBuf> {
    let Pair { certificate, key } = pki.client(file, subject)?;
    let server = SocketAddr::new(control_plane().v4.into(), API_PORT);
    let text = format!(
        "apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster:
    server: https://{server}
    certificate-authority: {authority}
users:
- name: user
  user:
    client-certificate: {certificate}
    client-key: {key}
contexts:
- name: context
  context: {{cluster: cluster, user: user}}
current-context: context
",
        authority = state.at("pki/ca.crt").display(),
        certificate = certificate.display(),
        key = key.display(),
    );
    state.write(&format!("{file}.kubeconfig"), &text)
}
