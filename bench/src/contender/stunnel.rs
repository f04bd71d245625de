//! stunnel, which has a thread for each connection.

use std::fmt::Write;

use anyhow::Result;
use sheath_tests::interop::Program;

use super::{Hop, Side};

pub fn start(hop: &Hop<'_>) -> Result<Program> {
    let file = hop.write("stunnel.conf", &config(hop))?;
    let mut command = hop.place.command("stunnel4");
    Ok(hop.start("stunnel", command.arg(file)))
}

fn config(hop: &Hop<'_>) -> String {
    let role = match hop.side {
        Side::Client => "client = yes",
        Side::Server => "client = no\nrequireCert = yes",
    };
    let mut text = format!(
        "foreground = yes
pid =
syslog = no
debug = warning
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
sslVersion = TLSv1.3
ciphersuites = TLS_AES_128_GCM_SHA256
curves = X25519
options = NO_TICKET
sessionResume = no
cert = {}
key = {}
CAfile = {}
verifyChain = yes
checkHost = {}
",
        hop.own().certificate.display(),
        hop.own().key.display(),
        hop.authority().display(),
        hop.peer_name(),
    );
    for way in hop.ways() {
        let (listen, forward) = (way.listen, way.forward);
        let _ = write!(
            text,
            "[port-{}]\nlibwrap = no\naccept = {listen}\nconnect = {forward}\n{role}\n",
            listen.port()
        );
    }
    text
}
