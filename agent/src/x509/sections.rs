//! PEM (RFC 7468) taken apart into sections: all that a text has, or an error.
//!
//! A CRL that is lost lets a revoked certificate through, and a pin that is lost shuts somebody out. So there is no line
//! that begins a section and is not either taken or said to be wrong: whatever looks like a boundary is one, or the
//! text is refused.

use std::str;

/// How the lines around a section begin and end (RFC 7468, 3).
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// What a boundary is known by, however else it is damaged.
const LOOKS_LIKE_BEGIN: &[u8] = b"-----BEGIN";
const LOOKS_LIKE_END: &[u8] = b"-----END";
/// Longer than any label in use.
const LONGEST_LABEL: usize = 64;

/// U+FEFF in UTF-8, which editors put before a text; where texts were joined it is in the middle.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The same in UTF-16, in either order of bytes.
const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// What stands between two boundaries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Section<'t> {
    pub label: &'t str,
    /// Base64 in lines, perhaps behind headers (RFC 1421, 4.4).
    pub body: &'t [u8],
    /// The line of its first boundary, counted from one.
    pub line: usize,
}

/// Why a text cannot be split into sections. It never quotes the text, which may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("line {0}: a BEGIN line must be `-----BEGIN LABEL-----` and nothing else")]
    BadBegin(usize),
    #[error("line {0}: an END line must be `-----END LABEL-----` and nothing else")]
    BadEnd(usize),
    #[error("line {line}: what begins in line {begin} ends with another label")]
    OtherEnd { begin: usize, line: usize },
    #[error("line {0}: an END line without a BEGIN line before it")]
    NoBegin(usize),
    #[error("the section that begins in line {0} does not end")]
    NoEnd(usize),
    #[error("the section that begins in line {0} is not base64")]
    NoBase64(usize),
    #[error("it is UTF-16; write it as ASCII or UTF-8")]
    Utf16,
}

/// Every section of a text, in order. Other lines may stand before, between and behind them.
///
/// # Errors
/// If a section is damaged: then none counts, as one could be lost without notice.
pub fn sections(text: &[u8]) -> Result<Vec<Section<'_>>, PemError> {
    if UTF_16.iter().any(|mark| text.starts_with(mark)) {
        return Err(PemError::Utf16);
    }
    let mut found = Vec::new();
    let mut open: Option<Open<'_>> = None;
    for Line { number, start, content } in Lines::of(text) {
        let mut line = trim(content);
        if let Some(section) = &open {
            let Some(end) = line.strip_prefix(END) else {
                if has(line, LOOKS_LIKE_BEGIN) {
                    return Err(PemError::NoEnd(section.line));
                }
                if has(line, LOOKS_LIKE_END) {
                    return Err(PemError::BadEnd(number));
                }
                continue;
            };
            let (label, behind) = split_label(end).ok_or(PemError::BadEnd(number))?;
            if label != section.label {
                return Err(PemError::OtherEnd { begin: section.line, line: number });
            }
            let Open { label, line: begin, body } = *section;
            found.push(Section { label, body: &text[body..start], line: begin });
            open = None;
            // Files that were joined have lost the line break between the two.
            line = trim(behind);
            if !line.is_empty() && !line.starts_with(BEGIN) {
                return Err(PemError::BadEnd(number));
            }
        }
        if let Some(begin) = line.strip_prefix(BEGIN) {
            match split_label(begin) {
                Some((label, [])) => {
                    open = Some(Open { label, line: number, body: start + content.len() });
                }
                _ => return Err(PemError::BadBegin(number)),
            }
        } else if has(line, LOOKS_LIKE_BEGIN) {
            return Err(PemError::BadBegin(number));
        } else if has(line, LOOKS_LIKE_END) {
            return Err(PemError::NoBegin(number));
        }
    }
    match open {
        None => Ok(found),
        Some(section) => Err(PemError::NoEnd(section.line)),
    }
}

/// A section that has not ended.
#[derive(Clone, Copy)]
struct Open<'t> {
    label: &'t str,
    line: usize,
    /// Where its body begins.
    body: usize,
}

/// The label at the start of what is behind `-----BEGIN ` or `-----END `, and what is behind its dashes.
fn split_label(text: &[u8]) -> Option<(&str, &[u8])> {
    let length = text.windows(DASHES.len()).position(|part| part == DASHES)?;
    let (label, behind) = (&text[..length], &text[length + DASHES.len()..]);
    let allowed =
        |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" .-#".contains(byte);
    let is_label = !label.is_empty() && label.len() <= LONGEST_LABEL && label.iter().all(allowed);
    let label = is_label.then(|| str::from_utf8(label).ok()).flatten()?;
    Some((label, behind))
}

/// Without white space around it, and without marks before it.
fn trim(line: &[u8]) -> &[u8] {
    let mut line = line.trim_ascii();
    while let Some(rest) = line.strip_prefix(BYTE_ORDER_MARK) {
        line = rest.trim_ascii_start();
    }
    line
}

/// In whichever case.
fn has(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

struct Line<'t> {
    number: usize,
    /// Where it is in the text.
    start: usize,
    content: &'t [u8],
}

/// Lines that end with LF, CR LF or CR.
struct Lines<'t> {
    text: &'t [u8],
    number: usize,
    start: usize,
}

impl<'t> Lines<'t> {
    fn of(text: &'t [u8]) -> Self {
        Self { text, number: 0, start: 0 }
    }
}

impl<'t> Iterator for Lines<'t> {
    type Item = Line<'t>;

    fn next(&mut self) -> Option<Line<'t>> {
        let (text, start) = (self.text, self.start);
        let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
        let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let length = length.unwrap_or(rest.len());
        let is_double = rest[length..].starts_with(b"\r\n");
        self.start = start + length + if is_double { 2 } else { 1 };
        self.number += 1;
        Some(Line { number: self.number, start, content: &rest[..length] })
    }
}

#[cfg(test)]
mod tests;
