//! Keys of mappings, taken and put.

use serde_json::{Map, Value};

use crate::kubernetes::is_object_name;

/// A mapping of keys to values.
pub type Keys = Map<String, Value>;

/// The mapping at a key, or an empty one.
pub fn mapping(value: &Value) -> Keys {
    value.as_object().cloned().unwrap_or_default()
}

/// The entries of the list at a key.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The text at a key, or an empty one.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Moves keys that are there from one mapping to another.
pub fn take(from: &mut Keys, keys: &[&str]) -> Keys {
    let taken = keys.iter().filter_map(|key| Some(((*key).to_owned(), from.remove(*key)?)));
    taken.collect()
}

/// Puts a mapping at a key, unless there is nothing in it.
pub fn put(into: &mut Keys, key: &str, keys: Keys) {
    if !keys.is_empty() {
        into.insert(key.to_owned(), Value::Object(keys));
    }
}

/// The name that an object made of something of this name has.
pub fn object_name(name: &str) -> Option<&str> {
    (is_object_name(name) && !name.starts_with('-') && !name.ends_with(['-', '.'])).then_some(name)
}

/// A length of time as objects have it: in one unit.
pub fn period(text: &str) -> Option<String> {
    let millis = humantime::parse_duration(text).ok()?.as_millis();
    let units: [(&str, u128); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let (unit, length) = units.into_iter().find(|(_, length)| millis % length == 0)?;
    Some(format!("{}{unit}", millis / length))
}
