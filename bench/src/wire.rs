//! Is a contender what it claims to be? This is checked once, before anything is measured: a contender that carries plaintext, or
//! lets anybody in, would win.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use sheath_tests::dissect::stream::Stream;
use sheath_tests::dissect::tls;
use sheath_tests::names;
use sheath_tests::rogue::{Dial, End};

use crate::contender::{Contender, Side};
use crate::play::Play;
use crate::services::ECHO;

const TLS_1_3: u16 = 0x0304;
/// TLS_AES_128_GCM_SHA256 (RFC 8446, B.4).
const AES_128_GCM: u16 = 0x1301;
/// RFC 8446, 4.2.7.
const X25519: u16 = 0x001d;
/// X25519MLKEM768 (IANA, TLS Supported Groups).
const X25519_MLKEM768: u16 = 0x11ec;

/// How long somebody who must be refused waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What crosses the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Plaintext,
    /// Mutual TLS 1.3 with AES-128-GCM; keys agreed on in the group of this number.
    Tls {
        group: u16,
    },
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext => f.write_str("plaintext"),
            Self::Tls { group } => {
                let group = match *group {
                    X25519_MLKEM768 => "X25519MLKEM768",
                    _ => "X25519",
                };
                write!(f, "mutual TLS 1.3, AES-128-GCM, {group}, no resumption")
            }
        }
    }
}

/// Sends words through a contender, and sees what becomes of them on the wire.
///
/// # Errors
/// When it is not what the contender promises.
pub fn check(contender: &Contender) -> Result<Wire> {
    let tap = contender.world.tap();
    let words = names::marker();
    // Twice, because a session can be resumed only by the second.
    for _ in 0..2 {
        let say = Play::Say { to: contender.target(ECHO), text: words.clone() };
        contender.run_client(&mut say.command(&contender.client)?)?;
    }
    let sightings = tap.sightings(&words);
    if !contender.encrypts() {
        ensure!(sightings > 0, "its plaintext does not cross the wire");
        return Ok(Wire::Plaintext);
    }
    ensure!(sightings == 0, "plaintext crosses the wire");
    let port = contender.on_wire(ECHO).port();
    let streams = tap.streams();
    let from_server = streams.iter().filter(|stream| stream.source.port() == port);
    let groups: Vec<u16> = from_server.map(handshake).collect::<Result<_>>()?;
    let Some(&group) = groups.first() else {
        bail!("nothing crosses the wire from port {port}");
    };
    let expected = if contender.is_hybrid() { X25519_MLKEM768 } else { X25519 };
    ensure!(group == expected, "keys are agreed on in group {group:#06x}, not {expected:#06x}");
    drop(tap);
    refuses_strangers(contender, &words)?;
    Ok(Wire::Tls { group })
}

/// The group of a handshake, seen from the server's bytes.
fn handshake(stream: &Stream) -> Result<u16> {
    let version = tls::version_selected(&stream.bytes);
    ensure!(version == Some(TLS_1_3), "the version is {version:04x?}, not TLS 1.3");
    let suite = tls::suite_selected(&stream.bytes);
    ensure!(suite == Some(AES_128_GCM), "the suite is {suite:04x?}, not TLS_AES_128_GCM_SHA256");
    ensure!(tls::is_resumed(&stream.bytes) == Some(false), "sessions are resumed");
    let Some(group) = tls::group_selected(&stream.bytes) else {
        bail!("no group in a ServerHello")
    };
    Ok(group)
}

/// Neither plaintext nor, at a proxy, a client without a certificate gets an answer from the server's side. Whom agents
/// refuse is shown by the scenarios.
fn refuses_strangers(contender: &Contender, words: &str) -> Result<()> {
    let (netns, to) = (&contender.world.a.netns, contender.on_wire(ECHO));
    let heard = netns.run(|| plaintext(to, words));
    ensure!(!heard.contains(words), "its server side takes plaintext");
    let Some(credentials) = contender.credentials() else { return Ok(()) };
    let is_served = |leaf| {
        let dial = Dial { netns, to, leaf, alpn: &[], send: words, end: End::AfterEcho };
        dial.run().received == words
    };
    ensure!(!is_served(None), "its server side takes clients without a certificate");
    // Else the refusal would mean nothing.
    let client = credentials.leaf(Side::Client);
    ensure!(is_served(Some(client)), "its server side refuses the client side's certificate");
    Ok(())
}

fn plaintext(to: SocketAddr, words: &str) -> String {
    let mut heard = Vec::new();
    // Any failure counts as a refusal.
    let _ = TcpStream::connect(to).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(words.as_bytes())?;
        stream.read_to_end(&mut heard)
    });
    String::from_utf8_lossy(&heard).into_owned()
}
