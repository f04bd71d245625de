//! A configuration file as objects, and objects as keys of a configuration file.
//!
//! Names and meanings are the same, so most of it is copied. What has no equivalent is a note where nothing less is protected
//! without it, and an error where it would be. What the file has and objects do not, such as paths, is kept in an annotation,
//! so that the way back leads to the same file.

mod keys;
mod to_file;
mod to_objects;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sys::files::{self, ReadError};

pub use to_file::to_file;
pub use to_objects::to_objects;

/// The annotation with what only the file has, in JSON.
const IN_FILE: &str = "sheath.dev/in-file";

/// What is to be converted.
#[derive(Clone, Debug)]
pub enum Input {
    /// Objects of the API, one after the other.
    Objects(Vec<Value>),
    /// The keys of a configuration file.
    File(Value),
}

/// What has come of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Converted {
    documents: Vec<Document>,
}

/// A document, and what is to be said about it.
#[derive(Clone, Debug, PartialEq)]
struct Document {
    notes: Vec<String>,
    value: Value,
}

/// Why something is not converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: ReadError },
    #[error("{}: {error}", path.display())]
    Malformed { path: PathBuf, error: String },
    #[error("{at}: {reason}")]
    NoEquivalent { at: String, reason: String },
    #[error("cannot write YAML: {0}")]
    Unwritable(#[from] serde_saphyr::SerializeError),
}

impl ConvertError {
    fn at(at: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::NoEquivalent { at: at.into(), reason: reason.into() }
    }
}

impl Input {
    /// Reads a file, and tells what it is.
    ///
    /// # Errors
    /// If it cannot be read, or is no YAML.
    pub fn read(path: &Path) -> Result<Self, ConvertError> {
        let text = files::read_text(path, files::CONVERTED)
            .map_err(|error| ConvertError::Unreadable { path: path.to_owned(), error })?;
        Self::parse(&text).map_err(|error| ConvertError::Malformed { path: path.to_owned(), error })
    }

    /// The same, of the file's content.
    ///
    /// # Errors
    /// If it is no YAML.
    pub fn parse(text: &str) -> Result<Self, String> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| error.without_snippet().to_string())?;
        let mut documents: Vec<Value> =
            documents.into_iter().filter(|document| !document.is_null()).collect();
        let is_object = |document: &Value| document["kind"].is_string();
        match documents.len() {
            0 => Err("there is nothing in it".to_owned()),
            1 if !is_object(&documents[0]) => Ok(Self::File(documents.remove(0))),
            _ => Ok(Self::Objects(documents.into_iter().flat_map(items).collect())),
        }
    }
}

/// The objects of a list, as kubectl prints several.
fn items(object: Value) -> Vec<Value> {
    match &object["items"] {
        Value::Array(items) if object["kind"] == "List" => items.clone(),
        _ => vec![object],
    }
}

impl Converted {
    fn add(&mut self, notes: Vec<String>, value: Value) {
        self.documents.push(Document { notes, value });
    }

    /// The documents themselves.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.documents.iter().map(|document| &document.value)
    }

    /// All that is to be said about them.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.documents.iter().flat_map(|document| document.notes.iter().map(String::as_str))
    }

    /// As YAML, with notes as comments.
    ///
    /// # Errors
    /// If a document cannot be written.
    pub fn yaml(&self) -> Result<String, ConvertError> {
        let mut text = String::new();
        for (index, document) in self.documents.iter().enumerate() {
            if index > 0 {
                text.push_str("---\n");
            }
            for note in &document.notes {
                // A comment ends with its line, whatever a name has in it.
                let line: String = note.chars().filter(|c| !c.is_control()).collect();
                text.push_str(&format!("# {line}\n"));
            }
            text.push_str(&serde_saphyr::to_string(&document.value)?);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
