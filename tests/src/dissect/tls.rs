//! TLS as it looks from outside: record headers and the two hellos (RFC 8446, 4.1 and 5.1).

use std::fmt;

const HANDSHAKE: u8 = 22;
/// change_cipher_spec to application_data.
const CONTENT_TYPES: std::ops::RangeInclusive<u8> = 20..=23;
/// 2^14 bytes of content and at most 256 of expansion.
const LONGEST_RECORD: usize = (1 << 14) + 256;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_PRE_SHARED_KEY: u16 = 41;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
const EXTENSION_KEY_SHARE: u16 = 51;

/// One record: its content type and its content, encrypted or not.
pub struct Record<'a> {
    pub kind: u8,
    pub content: &'a [u8],
}

/// Where and why a stream is not TLS.
#[derive(Debug)]
pub struct NotTls {
    pub offset: usize,
    pub reason: &'static str,
}

impl fmt::Display for NotTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason, self.offset)
    }
}

/// Splits a stream into records. A last record that was cut off is left out.
///
/// # Errors
/// When the stream is empty or anything in it is not a record.
pub fn records(stream: &[u8]) -> Result<Vec<Record<'_>>, NotTls> {
    let mut records = Vec::new();
    let mut offset = 0;
    let not = |offset, reason| Err(NotTls { offset, reason });
    if stream.is_empty() {
        return not(0, "no payload at all");
    }
    while let Some(header) = stream.get(offset..offset + 5) {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if !CONTENT_TYPES.contains(&header[0]) {
            return not(offset, "not a content type");
        }
        if records.is_empty() && header[0] != HANDSHAKE {
            return not(offset, "does not start with a handshake record");
        }
        if header[1] != 3 || header[2] > 3 {
            return not(offset, "not a record version");
        }
        if length > LONGEST_RECORD {
            return not(offset, "record too long");
        }
        let Some(content) = stream.get(offset + 5..offset + 5 + length) else {
            break;
        };
        records.push(Record { kind: header[0], content });
        offset += 5 + length;
    }
    if records.is_empty() {
        return not(0, "not even one whole record");
    }
    Ok(records)
}

/// The protocols a ClientHello at the start of `stream` offers by ALPN.
pub fn alpn_offered(stream: &[u8]) -> Option<Vec<String>> {
    let records = records(stream).ok()?;
    let extension = extension(records.first()?.content, CLIENT_HELLO, EXTENSION_ALPN)?;
    let mut list = extension.get(2..)?;
    let mut names = Vec::new();
    while let Some((&length, rest)) = list.split_first() {
        let (name, rest) = rest.split_at_checked(length.into())?;
        names.push(String::from_utf8_lossy(name).into_owned());
        list = rest;
    }
    Some(names)
}

/// The server name a ClientHello at the start of `stream` indicates (RFC 6066, 3).
pub fn server_name(stream: &[u8]) -> Option<String> {
    let records = records(stream).ok()?;
    let list = extension(records.first()?.content, CLIENT_HELLO, EXTENSION_SERVER_NAME)?;
    // The list's length, the kind of the only name in it, and that name's length.
    Some(String::from_utf8_lossy(list.get(2 + 1 + 2..)?).into_owned())
}

/// The version a ServerHello at the start of `stream` selects, e.g. `0x0304` for TLS 1.3.
pub fn version_selected(stream: &[u8]) -> Option<u16> {
    let records = records(stream).ok()?;
    let hello = records.first()?.content;
    match extension(hello, SERVER_HELLO, EXTENSION_SUPPORTED_VERSIONS) {
        Some(version) => Some(u16::from_be_bytes(version.try_into().ok()?)),
        // Without the extension the version field speaks, which ends at TLS 1.2.
        None => Some(u16::from_be_bytes(hello.get(4..6)?.try_into().ok()?)),
    }
}

/// The cipher suite that a ServerHello at the start of `stream` selects, by its number.
pub fn suite_selected(stream: &[u8]) -> Option<u16> {
    let records = records(stream).ok()?;
    let hello = records.first()?.content;
    // Message header, version and random come before the session id, the suite after it.
    let session = usize::from(*hello.get(SESSION_ID)?);
    number(hello.get(SESSION_ID + 1 + session..)?)
}

/// The group of the key agreement in the ServerHello of TLS 1.3 at the start of `stream`, by its number.
pub fn group_selected(stream: &[u8]) -> Option<u16> {
    let records = records(stream).ok()?;
    number(extension(records.first()?.content, SERVER_HELLO, EXTENSION_KEY_SHARE)?)
}

/// Whether the ServerHello at the start of `stream` resumes an earlier TLS 1.3 session.
pub fn is_resumed(stream: &[u8]) -> Option<bool> {
    let records = records(stream).ok()?;
    let hello = records.first()?.content;
    Some(extension(hello, SERVER_HELLO, EXTENSION_PRE_SHARED_KEY).is_some())
}

/// Where the session id of a hello message starts, with its length.
const SESSION_ID: usize = 4 + 2 + 32;

fn number(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// The body of one extension of a hello message.
fn extension(handshake: &[u8], hello: u8, wanted: u16) -> Option<&[u8]> {
    if *handshake.first()? != hello {
        return None;
    }
    let mut rest = handshake.get(SESSION_ID..)?;
    let session = usize::from(*rest.first()?);
    rest = rest.get(1 + session..)?;
    rest = if hello == CLIENT_HELLO {
        let suites = usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
        let rest = rest.get(2 + suites..)?;
        let compressions = usize::from(*rest.first()?);
        rest.get(1 + compressions..)?
    } else {
        rest.get(2 + 1..)?
    };
    rest = rest.get(2..)?;
    loop {
        let kind = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
        let length = usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?));
        let body = rest.get(4..4 + length)?;
        if kind == wanted {
            return Some(body);
        }
        rest = &rest[4 + length..];
    }
}
