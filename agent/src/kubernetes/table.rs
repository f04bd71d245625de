//! All objects of a kind, as they were last seen.

use std::collections::HashMap;
use std::hash::Hash;

/// Objects by their key. A list that is being read replaces the one before only when it is complete: an object that it does
/// not have yet is not gone.
#[derive(Debug)]
pub struct Table<K, V> {
    /// `None` until a whole list was read.
    objects: Option<HashMap<K, V>>,
    /// The list that is being read.
    listed: Option<HashMap<K, V>>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { objects: None, listed: None }
    }
}

impl<K: Eq + Hash, V: PartialEq> Table<K, V> {
    /// All objects, if a whole list was read.
    #[must_use]
    pub fn objects(&self) -> Option<&HashMap<K, V>> {
        self.objects.as_ref()
    }

    /// A list begins.
    pub fn begin(&mut self) {
        self.listed = Some(HashMap::new());
    }

    /// An object of the list that is being read.
    pub fn list(&mut self, key: K, object: V) {
        self.listed.get_or_insert_default().insert(key, object);
    }

    /// The list is complete. Returns true if it differs from what was known.
    pub fn end(&mut self) -> bool {
        let listed = self.listed.take().unwrap_or_default();
        let is_new = self.objects.as_ref() != Some(&listed);
        self.objects = Some(listed);
        is_new
    }

    /// An object is new, or has changed. Returns true if it differs from what was known.
    pub fn put(&mut self, key: K, object: V) -> bool {
        let Some(objects) = &mut self.objects else {
            return false;
        };
        let is_new = objects.get(&key) != Some(&object);
        objects.insert(key, object);
        is_new
    }

    /// An object is gone. Returns true if it was known.
    pub fn remove(&mut self, key: &K) -> bool {
        self.objects.as_mut().is_some_and(|objects| objects.remove(key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(table: &Table<&'static str, u8>) -> Vec<(&'static str, u8)> {
        let mut known: Vec<_> = table.objects().unwrap().iter().map(|(k, v)| (*k, *v)).collect();
        known.sort_unstable();
        known
    }

    #[test]
    fn nothing_is_known_before_a_list_is_complete() {
        let mut table = Table::default();
        assert_eq!(table.objects(), None);
        table.begin();
        table.list("a", 1);
        assert_eq!(table.objects(), None);
        assert!(!table.put("b", 2), "no list, no changes");
        assert!(table.end());
        assert_eq!(known(&table), [("a", 1)]);
    }

    #[test]
    fn a_list_that_breaks_off_removes_nothing() {
        let mut table = Table::default();
        table.begin();
        table.list("a", 1);
        table.list("b", 2);
        assert!(table.end());
        table.begin();
        table.list("a", 1);
        assert_eq!(known(&table), [("a", 1), ("b", 2)]);
        // It is read again from its beginning.
        table.begin();
        table.list("b", 3);
        assert!(table.end());
        assert_eq!(known(&table), [("b", 3)]);
    }

    #[test]
    fn what_is_as_it_was_is_no_change() {
        let mut table = Table::default();
        table.begin();
        table.list("a", 1);
        assert!(table.end());
        assert!(!table.put("a", 1) && table.put("a", 2) && table.put("b", 1));
        assert!(table.remove(&"b") && !table.remove(&"b"));
        table.begin();
        table.list("a", 2);
        assert!(!table.end());
    }

    #[test]
    fn an_empty_list_is_a_list() {
        let mut table: Table<&str, u8> = Table::default();
        table.begin();
        assert!(table.end());
        assert_eq!(known(&table), []);
    }
}
