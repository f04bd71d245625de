//! OpenSSL's own client and server. They do not forward: what they are told on their standard input
//! goes through TLS, and what comes out of it they print.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use super::{Program, Route, Tls, Versions};
use crate::ca::PemFiles;
use crate::netns::must_succeed;
use crate::wait::{GENEROUS, wait_until};

/// `openssl s_server` at `route.listen`, for one connection after the other.
#[track_caller]
pub fn s_server(route: &Route, tls: &Tls) -> Program {
    start_server(route, tls, &[])
}

/// The same, but with another certificate for clients that ask for `name`.
#[track_caller]
pub fn s_server_by_name(route: &Route, tls: &Tls, name: &str, other: &PemFiles) -> Program {
    let (certificate, key) = (other.certificate.as_os_str(), other.key.as_os_str());
    let words = ["-servername", name, "-cert2", "-key2"].map(OsStr::new);
    let [servername, name, cert2, key2] = words;
    start_server(route, tls, &[servername, name, cert2, certificate, key2, key])
}

/// The same, taking `K` or `k` at the start of what it is told for a command: to change its keys, and with `K` to ask
/// for the client's new ones. It sends tickets, and short, padded records of one cipher suite.
#[track_caller]
pub fn s_server_that_obeys(route: &Route, tls: &Tls, suite: &str) -> Program {
    // It does not flush what it says of its keys.
    let mut command = route.place.command("stdbuf");
    command.args(["--output=L", "openssl"]);
    server(&mut command, route, tls);
    command.args(["-num_tickets", "5"]);
    command.args(ODD_RECORDS).args(["-ciphersuites", suite]);
    route.start("s_server", &mut command)
}

/// [`s_client`] with the same commands and records.
#[track_caller]
pub fn s_client_that_obeys(route: &Route, tls: &Tls, suite: &str) -> Program {
    let mut command = client(route, tls);
    command.args(ODD_RECORDS).args(["-ciphersuites", suite]);
    Program::spawn("s_client", &route.place, &route.dir, &mut command)
}

/// Has a program change its keys.
#[track_caller]
pub fn change_keys(program: &mut Program, asks_for_ours: bool) {
    let changes = |program: &Program| {
        let log = program.log();
        KEYS_CHANGED.iter().map(|words| log.matches(words).count()).sum::<usize>()
    };
    let before = changes(program);
    program.say(if asks_for_ours { "K\n" } else { "k\n" });
    wait_until("the program's next keys", GENEROUS, || changes(program) > before);
}

/// What s_client and s_server print when they change their keys.
const KEYS_CHANGED: [&str; 2] = ["KEYUPDATE", "SSL_do_handshake -> 1"];

/// As short as OpenSSL makes records, and none of the length of what is in it.
const ODD_RECORDS: [&str; 4] = ["-max_send_frag", "512", "-record_padding", "300"];

#[track_caller]
fn start_server(route: &Route, tls: &Tls, more: &[&OsStr]) -> Program {
    let mut command = route.place.command("openssl");
    server(&mut command, route, tls);
    // Quiet, it takes no line of its input for a command.
    command.arg("-quiet").args(more);
    route.start("s_server", &mut command)
}

fn server(command: &mut Command, route: &Route, tls: &Tls) {
    command.args(["s_server", "-accept", &route.listen.to_string()]);
    options(command, tls);
    if tls.trust.is_some() {
        command.args(["-Verify", "1"]);
    }
}

/// `openssl s_client`, connecting to `route.forward`.
#[track_caller]
pub fn s_client(route: &Route, tls: &Tls) -> Program {
    let mut command = client(route, tls);
    // With the end of its input ignored, it takes no line of it for a command either.
    command.arg("-ign_eof");
    Program::spawn("s_client", &route.place, &route.dir, &mut command)
}

fn client(route: &Route, tls: &Tls) -> Command {
    let mut command = route.place.command("openssl");
    command.args(["s_client", "-connect", &route.forward.to_string()]);
    options(&mut command, tls);
    command
}

/// What both understand.
fn options(command: &mut Command, tls: &Tls) {
    command.arg(match tls.versions {
        Versions::Tls12 => "-tls1_2",
        Versions::Tls13 => "-tls1_3",
    });
    if let Some(own) = &tls.own {
        command.arg("-cert").arg(&own.certificate).arg("-key").arg(&own.key);
    }
    if let Some(trust) = &tls.trust {
        command.arg("-verify_return_error").arg("-CAfile").arg(trust);
    }
    if !tls.alpn.is_empty() {
        command.args(["-alpn", &tls.alpn.join(",")]);
    }
    if !tls.ciphers.is_empty() {
        command.args(["-cipher", &tls.ciphers.join(":")]);
    }
    if !tls.curves.is_empty() {
        command.args(["-groups", &tls.curves.join(":")]);
    }
}

/// A self-signed certificate as `openssl req -x509` makes it: of version 3, with CA:TRUE and without
/// key usage. `name` is its common name and its only DNS name.
pub fn self_signed(dir: &Path, name: &str) -> PemFiles {
    let files = PemFiles::in_dir(dir);
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "1", "-subj", &format!("/CN={name}")]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-addext", &format!("subjectAltName=DNS:{name}")]);
    command.arg("-keyout").arg(&files.key).arg("-out").arg(&files.certificate);
    must_succeed(&mut command);
    files
}
