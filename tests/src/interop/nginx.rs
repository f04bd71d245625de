//! nginx as a proxy of TCP streams.

use std::fs;

use super::{Program, Route, Tls, Versions};
use crate::ca::PemFiles;

/// Returns when it listens with TLS at `route.listen`.
#[track_caller]
pub fn terminating(route: &Route, tls: &Tls) -> Program {
    let mut text = format!("listen {} ssl;\nproxy_pass {};\n", route.listen, route.forward);
    text += &format!("ssl_protocols {};\n", version(tls));
    if let Some(own) = &tls.own {
        text += &certificate("ssl", own);
    }
    if let Some(trust) = &tls.trust {
        text += &format!("ssl_verify_client on;\nssl_client_certificate {};\n", trust.display());
    }
    if !tls.alpn.is_empty() {
        text += &format!("ssl_alpn {};\n", tls.alpn.join(" "));
    }
    if !tls.ciphers.is_empty() {
        text += &format!("ssl_ciphers {};\n", tls.ciphers.join(":"));
    }
    if !tls.curves.is_empty() {
        text += &format!("ssl_ecdh_curve {};\n", tls.curves.join(":"));
    }
    start(route, &text)
}

/// Returns when it listens for plaintext at `route.listen`. nginx looks for `name` among the DNS
/// names of the server's certificate and, where there are none, at the common name.
#[track_caller]
pub fn originating(route: &Route, tls: &Tls, name: &str) -> Program {
    let silent = tls.alpn.is_empty() && tls.ciphers.is_empty() && tls.curves.is_empty();
    assert!(silent, "nothing of this is said to a stream's server");
    let mut text = format!("listen {};\nproxy_pass {};\n", route.listen, route.forward);
    text += &format!("proxy_ssl on;\nproxy_ssl_protocols {};\n", version(tls));
    if let Some(own) = &tls.own {
        text += &certificate("proxy_ssl", own);
    }
    if let Some(trust) = &tls.trust {
        text += &format!("proxy_ssl_verify on;\nproxy_ssl_name \"{name}\";\n");
        text += &format!("proxy_ssl_trusted_certificate {};\n", trust.display());
    }
    start(route, &text)
}

#[track_caller]
fn start(route: &Route, server: &str) -> Program {
    let file = route.dir.join("nginx.conf");
    fs::write(&file, config(route, server)).expect("nginx.conf");
    let mut command = route.place.command("nginx");
    command.arg("-p").arg(&route.dir).arg("-c").arg(&file).args(["-e", "stderr"]);
    route.start("nginx", &mut command)
}

fn config(route: &Route, server: &str) -> String {
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
# One process, that goes when it is killed.
master_process off;
pid {}/nginx.pid;
error_log stderr info;
events {{ worker_connections 64; }}
stream {{
    log_format tls 'status $status $ssl_protocol name [$ssl_server_name] '
                   'verified $ssl_client_verify $ssl_client_s_dn';
    access_log /dev/stdout tls;
    server {{
        {server}
    }}
}}
",
        route.dir.display()
    )
}

fn certificate(directive: &str, files: &PemFiles) -> String {
    format!(
        "{directive}_certificate {};\n{directive}_certificate_key {};\n",
        files.certificate.display(),
        files.key.display()
    )
}

fn version(tls: &Tls) -> &'static str {
    match tls.versions {
        Versions::Tls12 => "TLSv1.2",
        Versions::Tls13 => "TLSv1.3",
    }
}
