//! haproxy as a proxy of TCP streams.

use std::fmt::Write;

use anyhow::Result;
use sheath_tests::interop::Program;

use super::hop::{CONNECTIONS, threads};
use super::{Hop, Side};

pub fn start(hop: &Hop<'_>) -> Result<Program> {
    let file = hop.write("haproxy.cfg", &config(hop))?;
    let mut command = hop.place.command("haproxy");
    Ok(hop.start("haproxy", command.arg("-db").arg("-f").arg(file)))
}

fn config(hop: &Hop<'_>) -> String {
    let tls = format!(
        "ssl crt {} ca-file {} verify required ssl-min-ver TLSv1.3 no-tls-tickets \
         ciphersuites TLS_AES_128_GCM_SHA256",
        hop.own_pem().display(),
        hop.authority().display(),
    );
    let (bind, server) = match hop.side {
        Side::Client => {
            (String::new(), format!("{tls} no-ssl-reuse verifyhost {}", hop.peer_name()))
        }
        // It cannot check the names of a client's certificate but for the common name.
        Side::Server => (format!("{tls} curves X25519"), String::new()),
    };
    let mut text = format!(
        "global
    maxconn {}
    nbthread {}
    tune.ssl.cachesize 0
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
",
        CONNECTIONS / 2,
        threads(),
    );
    for way in hop.ways() {
        let port = way.listen.port();
        let _ = write!(
            text,
            "listen port-{port}\n    bind {} {bind}\n    server next {} {server}\n",
            way.listen, way.forward
        );
    }
    text
}
