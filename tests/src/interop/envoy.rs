//! Envoy as a proxy for one listener and one cluster, from a static configuration.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Program, Route, Tls, Versions};
use crate::binaries;
use crate::ca::San;

/// What an Envoy is to do. Which of its two sides speaks TLS is said by how it is made.
pub struct Envoy<'r> {
    route: &'r Route,
    downstream: Option<Context>,
    upstream: Option<Context>,
    http: bool,
    http2: bool,
    connect_timeout: &'static str,
}

/// One TLS context.
struct Context {
    tls: Tls,
    /// One of these names the peer's certificate must have; empty: any.
    expect: Vec<San>,
    sni: Option<String>,
}

impl<'r> Envoy<'r> {
    pub fn terminating(route: &'r Route, tls: &Tls, expect: &[San]) -> Self {
        let downstream = Some(Context::new(tls, expect));
        Self { downstream, ..Self::plain(route) }
    }

    pub fn originating(route: &'r Route, tls: &Tls, expect: &[San]) -> Self {
        let upstream = Some(Context::new(tls, expect));
        Self { upstream, ..Self::plain(route) }
    }

    fn plain(route: &'r Route) -> Self {
        Self {
            route,
            downstream: None,
            upstream: None,
            http: false,
            http2: false,
            connect_timeout: "10s",
        }
    }

    /// Forwards HTTP requests, not bytes.
    #[must_use]
    pub fn http(self) -> Self {
        Self { http: true, ..self }
    }

    /// Forwards HTTP requests as HTTP/2.
    #[must_use]
    pub fn http2(self) -> Self {
        Self { http: true, http2: true, ..self }
    }

    /// How long the upstream may take to connect, its TLS handshake included.
    #[must_use]
    pub fn connect_timeout(self, limit: &'static str) -> Self {
        Self { connect_timeout: limit, ..self }
    }

    /// The server name that an originating Envoy indicates.
    #[must_use]
    pub fn sni(mut self, name: &str) -> Self {
        self.upstream.as_mut().expect("an originating Envoy").sni = Some(name.to_owned());
        self
    }

    /// Returns when it listens.
    #[track_caller]
    pub fn start(&self) -> Program {
        let file = self.route.dir.join("envoy.json");
        let text = serde_json::to_string_pretty(&self.config()).expect("Envoy's configuration");
        fs::write(&file, text).expect("Envoy's configuration");
        let mut command = self.route.place.command(binaries::envoy());
        command.args(["--concurrency", "1", "--log-level", "warning"]);
        // Envoys of parallel tests would share memory by their base id.
        command.arg("--disable-hot-restart").arg("--config-path").arg(&file);
        self.route.start("Envoy", &mut command)
    }

    fn config(&self) -> Value {
        let (listen, forward) = (self.route.listen, self.route.forward);
        let mut chain = json!({"filters": [self.filter()]});
        if let Some(context) = &self.downstream {
            let mut tls = context.to_json("DownstreamTlsContext");
            tls["typed_config"]["require_client_certificate"] = context.tls.trust.is_some().into();
            chain["transport_socket"] = tls;
        }
        let mut cluster = json!({
            "name": CLUSTER,
            "connect_timeout": self.connect_timeout,
            "load_assignment": {
                "cluster_name": CLUSTER,
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": address(forward)}}]},
                ],
            },
        });
        if let Some(context) = &self.upstream {
            cluster["transport_socket"] = context.to_json("UpstreamTlsContext");
        }
        if self.http2 {
            let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            let options = json!({"explicit_http_config": {"http2_protocol_options": {}}});
            cluster["typed_extension_protocol_options"][kind] = with_type(kind, options);
        }
        let listener = json!({
            "address": address(listen),
            "filter_chains": [chain],
            // Of connections whose handshake fails there is no other line.
            "access_log": [access_log("listener")],
        });
        json!({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
    }

    fn filter(&self) -> Value {
        if !self.http {
            return typed(
                "envoy.filters.network.tcp_proxy",
                "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                json!({
                    "stat_prefix": "tcp",
                    "cluster": CLUSTER,
                    "access_log": [access_log("tcp")],
                }),
            );
        }
        let router = typed(
            "envoy.filters.http.router",
            "envoy.extensions.filters.http.router.v3.Router",
            json!({}),
        );
        typed(
            "envoy.filters.network.http_connection_manager",
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            json!({
                "stat_prefix": "http",
                "http_filters": [router],
                "access_log": [access_log("http")],
                "route_config": {
                    "virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": CLUSTER}}],
                    }],
                },
            }),
        )
    }
}

const CLUSTER: &str = "forward";

impl Context {
    fn new(tls: &Tls, expect: &[San]) -> Self {
        Self { tls: tls.clone(), expect: expect.to_vec(), sni: None }
    }

    fn to_json(&self, kind: &str) -> Value {
        let tls = &self.tls;
        let version = match tls.versions {
            Versions::Tls12 => "TLSv1_2",
            Versions::Tls13 => "TLSv1_3",
        };
        let mut common = json!({
            "alpn_protocols": tls.alpn,
            "tls_params": {
                "tls_minimum_protocol_version": version,
                "tls_maximum_protocol_version": version,
                "cipher_suites": tls.ciphers,
                "ecdh_curves": tls.curves,
            },
        });
        if let Some(own) = &tls.own {
            common["tls_certificates"] = json!([{
                "certificate_chain": {"filename": own.certificate},
                "private_key": {"filename": own.key},
            }]);
        }
        if let Some(trust) = &tls.trust {
            let names: Vec<Value> = self.expect.iter().map(matcher).collect();
            common["validation_context"] = json!({
                "trusted_ca": {"filename": trust},
                "match_typed_subject_alt_names": names,
            });
        }
        let mut context = json!({"common_tls_context": common});
        if let Some(name) = &self.sni {
            context["sni"] = name.as_str().into();
        }
        let kind = format!("envoy.extensions.transport_sockets.tls.v3.{kind}");
        typed("envoy.transport_sockets.tls", &kind, context)
    }
}

/// A name that must be in the certificate, character for character.
fn matcher(name: &San) -> Value {
    match name {
        San::Uri(text) => json!({"san_type": "URI", "matcher": {"exact": text}}),
        San::Dns(name) => json!({"san_type": "DNS", "matcher": {"exact": name}}),
    }
}

fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

/// One line for each connection or request: what Envoy says of the TLS on both sides of it.
fn access_log(who: &str) -> Value {
    let line = format!(
        "{who} downstream %DOWNSTREAM_TLS_VERSION% from %DOWNSTREAM_PEER_URI_SAN% \
         failed %DOWNSTREAM_TRANSPORT_FAILURE_REASON% \
         upstream %UPSTREAM_TLS_VERSION% to %UPSTREAM_PEER_URI_SAN% \
         failed %UPSTREAM_TRANSPORT_FAILURE_REASON% flags %RESPONSE_FLAGS%\n"
    );
    typed(
        "envoy.access_loggers.stdout",
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        json!({"log_format": {"text_format_source": {"inline_string": line}}}),
    )
}

/// An extension's configuration.
fn typed(name: &str, kind: &str, config: Value) -> Value {
    json!({"name": name, "typed_config": with_type(kind, config)})
}

fn with_type(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/{kind}").into();
    config
}
