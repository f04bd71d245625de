//! nginx as a proxy of TCP streams.

use std::fmt::Write;

use anyhow::Result;
use sheath_tests::interop::Program;

use super::hop::{CONNECTIONS, threads};
use super::{Hop, Side};

pub fn start(hop: &Hop<'_>) -> Result<Program> {
    let file = hop.write("nginx.conf", &config(hop))?;
    let mut command = hop.place.command("nginx");
    command.arg("-p").arg(&hop.dir).arg("-c").arg(file).args(["-e", "stderr"]);
    Ok(hop.start("nginx", &mut command))
}

fn config(hop: &Hop<'_>) -> String {
    let (listen, tls) = match hop.side {
        Side::Client => ("", originating(hop)),
        Side::Server => (" ssl", terminating(hop)),
    };
    let mut servers = String::new();
    for way in hop.ways() {
        let _ = writeln!(
            servers,
            "    server {{ listen {}{listen}; proxy_pass {}; }}",
            way.listen, way.forward
        );
    }
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user root;
worker_processes {};
pid {}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {CONNECTIONS}; }}
stream {{
    access_log off;
    proxy_timeout 1h;
{tls}{servers}}}
",
        threads(),
        hop.dir.display(),
    )
}

/// It cannot check the names of a client's certificate.
fn terminating(hop: &Hop<'_>) -> String {
    format!(
        "    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_ecdh_curve X25519;
    ssl_session_tickets off;
    ssl_session_cache off;
    ssl_certificate {};
    ssl_certificate_key {};
    ssl_verify_client on;
    ssl_client_certificate {};
",
        hop.own().certificate.display(),
        hop.own().key.display(),
        hop.authority().display(),
    )
}

fn originating(hop: &Hop<'_>) -> String {
    format!(
        "    proxy_ssl on;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    proxy_ssl_session_reuse off;
    proxy_ssl_certificate {};
    proxy_ssl_certificate_key {};
    proxy_ssl_verify on;
    proxy_ssl_name {};
    proxy_ssl_trusted_certificate {};
",
        hop.own().certificate.display(),
        hop.own().key.display(),
        hop.peer_name(),
        hop.authority().display(),
    )
}
