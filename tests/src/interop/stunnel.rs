//! stunnel with one service.

use std::fs;

use super::{Program, Route, Tls, Versions};

/// Returns when it listens with TLS at `route.listen`.
#[track_caller]
pub fn terminating(route: &Route, tls: &Tls) -> Program {
    let require = if tls.trust.is_some() { "requireCert = yes\n" } else { "" };
    start(route, tls, &format!("client = no\n{require}"))
}

/// Returns when it listens for plaintext at `route.listen`.
#[track_caller]
pub fn originating(route: &Route, tls: &Tls) -> Program {
    start(route, tls, "client = yes\n")
}

#[track_caller]
fn start(route: &Route, tls: &Tls, role: &str) -> Program {
    let file = route.dir.join("stunnel.conf");
    fs::write(&file, config(route, tls, role)).expect("stunnel.conf");
    let mut command = route.place.command("stunnel4");
    route.start("stunnel", command.arg(&file))
}

fn config(route: &Route, tls: &Tls, role: &str) -> String {
    assert!(tls.alpn.is_empty(), "stunnel knows no ALPN");
    let version = match tls.versions {
        Versions::Tls12 => "TLSv1.2",
        Versions::Tls13 => "TLSv1.3",
    };
    let mut text = format!(
        "foreground = yes
pid =
syslog = no
debug = info
[proxy]
libwrap = no
sslVersion = {version}
accept = {}
connect = {}
{role}",
        address(route.listen),
        address(route.forward),
    );
    if let Some(own) = &tls.own {
        text += &format!("cert = {}\nkey = {}\n", own.certificate.display(), own.key.display());
    }
    if let Some(trust) = &tls.trust {
        text += &format!("verifyChain = yes\nCAfile = {}\n", trust.display());
    }
    if !tls.ciphers.is_empty() {
        text += &format!("ciphers = {}\n", tls.ciphers.join(":"));
    }
    if !tls.curves.is_empty() {
        text += &format!("curves = {}\n", tls.curves.join(":"));
    }
    text
}

/// The port stands behind the last colon; there are no brackets.
fn address(at: std::net::SocketAddr) -> String {
    format!("{}:{}", at.ip(), at.port())
}
