//! Envoy as a proxy of TCP streams.
//!
//! BoringSSL has no setting for the suites of TLS 1.3. With AES in hardware it prefers TLS_AES_128_GCM_SHA256.

use anyhow::Result;
use serde_json::{Value, json};
use sheath_tests::binaries;
use sheath_tests::interop::Program;

use super::hop::{CONNECTIONS, threads};
use super::{Hop, Side};
use crate::play::Way;

pub fn start(hop: &Hop<'_>) -> Result<Program> {
    start_with(hop, "X25519")
}

/// The same with the group that agents use.
pub fn start_hybrid(hop: &Hop<'_>) -> Result<Program> {
    start_with(hop, "X25519MLKEM768")
}

fn start_with(hop: &Hop<'_>, group: &str) -> Result<Program> {
    let file = hop.write("envoy.json", &config(hop, group).to_string())?;
    let mut command = hop.place.command(binaries::envoy());
    command.args(["--concurrency", &threads().to_string(), "--log-level", "warning"]);
    // Two Envoys would share memory by their base id.
    command.arg("--disable-hot-restart").arg("--config-path").arg(file);
    Ok(hop.start("envoy", &mut command))
}

fn config(hop: &Hop<'_>, group: &str) -> Value {
    let common_tls = common_tls(hop, group);
    let (listeners, clusters): (Vec<Value>, Vec<Value>) = hop
        .ways()
        .iter()
        .map(|way| (listener(hop, way, &common_tls), cluster(hop, way, &common_tls)))
        .unzip();
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}})
}

fn listener(hop: &Hop<'_>, way: &Way, common_tls: &Value) -> Value {
    let proxy = json!({"stat_prefix": "tcp", "cluster": name(way)});
    let kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let mut chain = json!({"filters": [typed("envoy.filters.network.tcp_proxy", kind, proxy)]});
    if hop.side == Side::Server {
        let context = json!({
            "common_tls_context": common_tls,
            "require_client_certificate": true,
            "disable_stateless_session_resumption": true,
            "disable_stateful_session_resumption": true,
        });
        chain["transport_socket"] = tls("DownstreamTlsContext", context);
    }
    json!({"name": name(way), "address": address(way.listen), "filter_chains": [chain]})
}

fn cluster(hop: &Hop<'_>, way: &Way, common_tls: &Value) -> Value {
    let endpoint = json!({"endpoint": {"address": address(way.forward)}});
    let mut cluster = json!({
        "name": name(way),
        "connect_timeout": "10s",
        "load_assignment": {
            "cluster_name": name(way),
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        // The default is 1 024.
        "circuit_breakers": {"thresholds": [{"max_connections": CONNECTIONS}]},
    });
    if hop.side == Side::Client {
        let context = json!({
            "common_tls_context": common_tls,
            "sni": hop.peer_name(),
            "max_session_keys": 0,
        });
        cluster["transport_socket"] = tls("UpstreamTlsContext", context);
    }
    cluster
}

fn common_tls(hop: &Hop<'_>, group: &str) -> Value {
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": [group],
        },
        "tls_certificates": [{
            "certificate_chain": {"filename": hop.own().certificate},
            "private_key": {"filename": hop.own().key},
        }],
        "validation_context": {
            "trusted_ca": {"filename": hop.authority()},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": hop.peer_id()}},
            ],
        },
    })
}

fn tls(kind: &str, context: Value) -> Value {
    let kind = format!("envoy.extensions.transport_sockets.tls.v3.{kind}");
    typed("envoy.transport_sockets.tls", &kind, context)
}

/// An extension's configuration.
fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/{kind}").into();
    json!({"name": name, "typed_config": config})
}

fn name(way: &Way) -> String {
    format!("port-{}", way.listen.port())
}

fn address(at: std::net::SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}
