//! The plugin in the text of a network's configuration. The text is not written anew: one entry is put in or taken out, and all
//! else stays as it is, to the last blank.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Why a configuration stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConflistError {
    #[error("it is no list of plugins: {0}")]
    NoList(String),
    #[error("it lists no plugin that makes a network, and sheath-cni makes none")]
    NoNetwork,
    #[error("it would not be read as it was meant; please report this")]
    NotAsMeant,
}

/// The plugins of a configuration, as pieces of its text.
struct List {
    places: Vec<Range<usize>>,
    types: Vec<String>,
}

impl List {
    fn parse(text: &str) -> Result<Self, ConflistError> {
        #[derive(Deserialize)]
        struct Network<'t> {
            #[serde(borrow)]
            plugins: Vec<&'t RawValue>,
        }
        #[derive(Deserialize)]
        struct Plugin {
            r#type: String,
        }
        let wrong = |error: serde_json::Error| ConflistError::NoList(error.to_string());
        let network: Network<'_> = serde_json::from_str(text).map_err(wrong)?;
        let mut list = Self { places: Vec::new(), types: Vec::new() };
        for plugin in network.plugins {
            let plugin = plugin.get();
            let start = plugin.as_ptr().addr() - text.as_ptr().addr();
            list.places.push(start..start + plugin.len());
            list.types.push(serde_json::from_str::<Plugin>(plugin).map_err(wrong)?.r#type);
        }
        Ok(list)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.types.iter().position(|found| found == name)
    }
}

/// The text with `entry`, a plugin of the type `name`, at the end of the plugins; or in its place, if there is one. `None` if
/// it is there already.
///
/// # Errors
/// If the text is no list of plugins that make a network.
pub fn with_plugin(text: &str, name: &str, entry: &str) -> Result<Option<String>, ConflistError> {
    let list = List::parse(text)?;
    let changed = match list.position(name) {
        Some(0) => return Err(ConflistError::NoNetwork),
        Some(at) if text[list.places[at].clone()] == *entry => return Ok(None),
        Some(at) => replaced(text, list.places[at].clone(), entry),
        None => {
            let last = list.places.last().ok_or(ConflistError::NoNetwork)?;
            // As the last one stands.
            let before = &text[..last.start];
            let blank = &before[before.trim_end().len()..];
            replaced(text, last.end..last.end, &format!(",{blank}{entry}"))
        }
    };
    // What was there is there still, in its order.
    let types = List::parse(&changed)?.types;
    let others = |types: Vec<String>| -> Vec<String> {
        types.into_iter().filter(|found| found != name).collect()
    };
    if !types.iter().any(|found| found == name) || others(types) != others(list.types) {
        return Err(ConflistError::NotAsMeant);
    }
    Ok(Some(changed))
}

/// The text without plugins of the type `name`. `None` if it has none.
///
/// # Errors
/// If the text is no list of plugins, or one of nothing else.
pub fn without_plugin(text: &str, name: &str) -> Result<Option<String>, ConflistError> {
    let mut changed: Option<String> = None;
    loop {
        let text = changed.as_deref().unwrap_or(text);
        let list = List::parse(text)?;
        let Some(at) = list.position(name) else {
            return Ok(changed);
        };
        let (this, places) = (list.places[at].clone(), &list.places);
        let taken = match (at.checked_sub(1), places.get(at + 1)) {
            (Some(before), _) => places[before].end..this.end,
            (None, Some(next)) => this.start..next.start,
            (None, None) => return Err(ConflistError::NoNetwork),
        };
        changed = Some(replaced(text, taken, ""));
    }
}

fn replaced(text: &str, place: Range<usize>, by: &str) -> String {
    [&text[..place.start], by, &text[place.end..]].concat()
}

#[cfg(test)]
mod tests;
