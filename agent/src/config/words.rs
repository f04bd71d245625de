//! Messages about invalid YAML. Those of the library name Rust types, which mean nothing to the author of a
//! configuration.

use serde_saphyr::Error;
use serde_saphyr::granit_parser::ErrorKind;
use serde_saphyr::localizer::ExternalMessageSource;

/// Why a document is not read, in one line.
pub fn reason(error: &Error) -> String {
    match error {
        // By the parsers of our own types.
        Error::Message { msg, .. } => msg.lines().next().unwrap_or_default().to_owned(),
        Error::AliasError { error, .. } => reason(error),
        Error::SerdeUnknownField { field, expected, .. } => match nearest(field, expected) {
            Some(nearest) => format!("unknown key `{field}`, did you mean `{nearest}`?"),
            None => format!("unknown key `{field}`"),
        },
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            let all: Vec<_> = expected.iter().map(|word| format!("`{word}`")).collect();
            format!("`{variant}` is none of {}", all.join(", "))
        }
        Error::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key `{key}` is there twice")
        }
        Error::DuplicateMappingKey { key: None, .. } => "a key is there twice".to_owned(),
        Error::SerdeInvalidType { expected, .. }
        | Error::SerdeInvalidValue { expected, .. }
        | Error::SerdeInvalidLength { expected, .. } => wanted(expected),
        Error::Unexpected { expected, .. } => wanted(expected),
        Error::InvalidScalar { ty, .. } => wanted(ty),
        Error::InvalidBooleanStrict { .. } => wanted("boolean"),
        Error::QuotingRequired { value, .. } => format!("the text `{value}` has to be in quotes"),
        Error::ExternalMessage { source, .. } => match source.as_ref() {
            ExternalMessageSource::Parser(error) => syntax(error.kind()).to_owned(),
            _ => NO_YAML.to_owned(),
        },
        other => form(other).to_owned(),
    }
}

const NO_YAML: &str = "this is no YAML";
const TOO_MUCH: &str =
    "the document has more in it than any configuration needs, or is nested too deep";
const NO_ANCHOR: &str = "an alias (`*name`) without the anchor (`&name`) that it stands for";
const BAD_INDENTATION: &str = "the indentation does not fit here";

/// What is wanted, by what the library calls it: a name of a type, or of an event of its parser.
fn wanted(expected: &str) -> String {
    let has = |word: &str| expected.contains(word);
    let what = if has("nonzero") {
        "a number from 1 on"
    } else if ["u16", "u32", "u64", "usize", "integer"].iter().any(|word| has(word)) {
        if has("16") { "a number up to 65535" } else { "a number" }
    } else if has("bool") {
        "`true` or `false`"
    } else if has("sequence") || has("array") {
        "a list"
    } else if has("struct") || has("map") {
        "a mapping, keys with values,"
    } else if has("string") || has("path") || has("scalar") || has("enum") {
        "a single value"
    } else {
        return "the value is of another kind than this key takes".to_owned();
    };
    format!("{what} is wanted here")
}

/// What is wrong with the form of a document.
fn form(error: &Error) -> &'static str {
    match error {
        Error::NullIntoString { .. } | Error::InvalidCharNull { .. } => {
            "a value is missing; write it, or remove the key"
        }
        Error::Eof { .. } => "the file is empty, or ends in the middle of something",
        Error::MultipleDocuments { .. } => {
            "a second document begins (`---`); a configuration is one document"
        }
        Error::UnknownAnchor { .. } => NO_ANCHOR,
        Error::MergeValueNotMapOrSeqOfMaps { .. } | Error::MergeKeyNotAllowed { .. } => {
            "`<<` takes an alias of a mapping"
        }
        Error::ContainerEndMismatch { .. }
        | Error::UnexpectedSequenceEnd { .. }
        | Error::UnexpectedMappingEnd { .. }
        | Error::UnexpectedContainerEndWhileReadingKeyNode { .. }
        | Error::UnexpectedContainerEndWhileSkippingNode { .. } => {
            "a list or a mapping ends where it should not"
        }
        Error::IndentationError { .. } | Error::FoldedBlockScalarMustIndentContent { .. } => {
            BAD_INDENTATION
        }
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => TOO_MUCH,
        Error::UnsupportedTag { .. }
        | Error::TaggedScalarCannotDeserializeIntoString { .. }
        | Error::TaggedEnumMismatch { .. }
        | Error::TaggedStructFieldName { .. }
        | Error::InvalidBinaryBase64 { .. }
        | Error::BinaryNotUtf8 { .. } => "tags (`!name`) mean nothing here",
        Error::UnsupportedIncludeForm { .. }
        | Error::CyclicInclude { .. }
        | Error::ResolverError { .. } => "a configuration includes no other files",
        Error::InvalidUtf8Input => "the file is not UTF-8",
        _ => "what is written does not fit here",
    }
}

/// What is wrong with the syntax of a document.
fn syntax(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::UnclosedFlowCollection { .. } => "a `[` or `{` is not closed",
        ErrorKind::MisplacedFlowCollectionEnd | ErrorKind::MismatchedFlowCollectionEnd { .. } => {
            "a `]` or `}` closes what was not opened"
        }
        ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::ExpectedFlowSequenceSeparator => {
            "a comma, or a `]` or `}`, is missing"
        }
        ErrorKind::UnexpectedEof
        | ErrorKind::UnexpectedEofBlockSequence
        | ErrorKind::UnexpectedEofBlockMapping => "the file ends in the middle of something",
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            "a quotation mark is not closed"
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar
        | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            "there is something behind a closing quotation mark"
        }
        ErrorKind::UnknownQuotedScalarEscape
        | ErrorKind::InvalidQuotedScalarHexEscape
        | ErrorKind::InvalidUnicodeEscape => {
            "an escape with `\\` that YAML does not know; in single quotes there are none"
        }
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => "a tab, where YAML wants spaces",
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::SimpleKeyExpected
        | ErrorKind::InvalidSimpleKey
        | ErrorKind::MappingKeyNotAllowed
        | ErrorKind::MappingValueNotAllowed
        | ErrorKind::InvalidColonPlacement
        | ErrorKind::InvalidMappingValueWhitespace => {
            "a key with `: ` and a value is wanted here; look at the indentation, and put what has a colon in it in \
             quotes"
        }
        ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::BlockSequenceEntryNotAllowed
        | ErrorKind::BlockEntryInFlowCollection
        | ErrorKind::InvalidBlockEntryWhitespace => {
            "a list entry (`- `) has no place here, or is missing; look at the indentation"
        }
        ErrorKind::InvalidIndentation
        | ErrorKind::InvalidBlockScalarIndent
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::InvalidFlowScalarIndent => BAD_INDENTATION,
        ErrorKind::UnknownAnchor => NO_ANCHOR,
        ErrorKind::MultipleDocumentsUnsupported | ErrorKind::InvalidDocumentEnd => {
            "a configuration is one document"
        }
        ErrorKind::RecursionLimitExceeded => TOO_MUCH,
        ErrorKind::CommentNotSeparated => "a `#` needs a space before it to begin a comment",
        ErrorKind::UnexpectedCharacter { .. }
        | ErrorKind::PlainScalarStartsWithDashFlowIndicator => {
            "a character that has no place here; put the value in quotes"
        }
        _ => NO_YAML,
    }
}

/// The candidate that is most like what was written.
fn nearest<'c>(written: &str, candidates: &[&'c str]) -> Option<&'c str> {
    candidates.iter().min_by_key(|candidate| distance(written, candidate)).copied()
}

/// Levenshtein distance, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
pub(super) mod tests;
