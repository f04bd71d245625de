//! What is wrong with a field, said with its path.

use std::fmt::{self, Display};
use std::hash::Hash;

/// A field that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// As `spec.inbound.ports[1]`; empty for the value as a whole.
    field: String,
    reason: String,
}

impl std::error::Error for Wrong {}

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever writes objects may write anything into them, and a message is one line.
        let reason =
            self.reason.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"");
        match self.field.is_empty() {
            true => f.write_str(&reason),
            false => write!(f, "{}: {reason}", self.field),
        }
    }
}

impl Wrong {
    /// Something that is wrong with a value as a whole.
    pub fn new(reason: impl Display) -> Self {
        Self { field: String::new(), reason: reason.to_string() }
    }

    /// The same, of the object or list that the value is in.
    pub fn within(mut self, key: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => key.to_owned(),
            field if field.starts_with('[') => format!("{key}{field}"),
            field => format!("{key}.{field}"),
        };
        self
    }

    /// The path of the field.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }
}

/// Names the field of what failed.
pub trait Within {
    /// As [`Wrong::within`].
    fn within(self, key: &str) -> Self;
}

impl<T> Within for Result<T, Wrong> {
    fn within(self, key: &str) -> Self {
        self.map_err(|wrong| wrong.within(key))
    }
}

/// Reads each entry of a list.
///
/// # Errors
/// What is wrong with the first that makes no sense.
pub fn each<R, T>(
    key: &str,
    list: &[R],
    read: impl Fn(&R) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    let entries = list.iter().enumerate();
    let entries = entries.map(|(index, entry)| read(entry).within(&format!("[{index}]")));
    entries.collect::<Result<_, _>>().within(key)
}

/// A list that the API server limits, and in which nothing is twice.
///
/// # Errors
/// If there is more, or something twice.
pub fn distinct<T: Eq + Hash + Display>(key: &str, list: &[T], most: usize) -> Result<(), Wrong> {
    at_most(key, list, most)?;
    let mut seen = std::collections::HashSet::new();
    match list.iter().position(|entry| !seen.insert(entry)) {
        None => Ok(()),
        Some(index) => {
            let wrong = Wrong::new(format!("`{}` is there twice", list[index]));
            Err(wrong.within(&format!("[{index}]")).within(key))
        }
    }
}

/// # Errors
/// If there is more in the list than the API server takes.
pub fn at_most<T>(key: &str, list: &[T], most: usize) -> Result<(), Wrong> {
    match list.len() <= most {
        true => Ok(()),
        false => {
            Err(Wrong::new(format!("has {} entries, and {most} at most are possible", list.len()))
                .within(key))
        }
    }
}

/// Ports, as they are written.
///
/// # Errors
/// If one is none, or there twice.
pub fn ports(key: &str, list: &[u16]) -> Result<std::collections::BTreeSet<u16>, Wrong> {
    distinct(key, list, 64)?;
    let ports = each(key, list, |port| port_of(*port))?;
    Ok(ports.into_iter().collect())
}

/// # Errors
/// If nothing can listen on it.
pub fn port_of(port: u16) -> Result<u16, Wrong> {
    match port {
        0 => Err(Wrong::new("a port is a number from 1 to 65535")),
        port => Ok(port),
    }
}
