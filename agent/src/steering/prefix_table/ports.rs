//! The values of one network by port. Mostly there is one value.

use std::collections::BTreeMap;
use std::mem;

/// Values by port; `None` stands for every port.
#[derive(Debug)]
pub enum Ports<V> {
    One(Option<u16>, Option<V>),
    Many(BTreeMap<Option<u16>, Option<V>>),
}

impl<V> Default for Ports<V> {
    fn default() -> Self {
        Self::One(None, None)
    }
}

impl<V> Ports<V> {
    pub fn get(&self, port: Option<u16>) -> Option<&V> {
        match self {
            Self::One(known, value) => value.as_ref().filter(|_| *known == port),
            Self::Many(all) => all.get(&port)?.as_ref(),
        }
    }

    /// The place of a port.
    pub fn entry(&mut self, port: Option<u16>) -> &mut Option<V> {
        if let Self::One(known, value) = self
            && *known != port
        {
            *self = match (*known, mem::take(value)) {
                (_, None) => Self::One(port, None),
                (known, value) => Self::Many(BTreeMap::from([(known, value)])),
            };
        }
        match self {
            Self::One(_, value) => value,
            Self::Many(all) => all.entry(port).or_default(),
        }
    }

    pub fn map<W>(self, f: &mut impl FnMut(V) -> W) -> Ports<W> {
        match self {
            Self::One(port, value) => Ports::One(port, value.map(f)),
            Self::Many(all) => {
                let all = all.into_iter().map(|(port, value)| (port, value.map(&mut *f)));
                Ports::Many(all.collect())
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Option<u16>, &V)> {
        let (one, many) = match self {
            Self::One(port, value) => (Some((port, value)), None),
            Self::Many(all) => (None, Some(all)),
        };
        let all = one.into_iter().chain(many.into_iter().flatten());
        all.filter_map(|(port, value)| Some((*port, value.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_its_value() {
        let mut ports = Ports::default();
        assert_eq!(ports.iter().next(), None);
        *ports.entry(Some(80)) = Some(1);
        *ports.entry(Some(80)) = Some(11);
        assert!(matches!(ports, Ports::One(..)));
        *ports.entry(None) = Some(2);
        *ports.entry(Some(443)) = Some(3);
        // Asked for, and left empty.
        assert_eq!(*ports.entry(Some(9)), None);
        let ports = ports.map(&mut |value| value * 2);
        let found = [Some(80), None, Some(443), Some(9)].map(|port| ports.get(port).copied());
        assert_eq!(found, [Some(22), Some(4), Some(6), None]);
        let all: Vec<_> = ports.iter().map(|(port, value)| (port, *value)).collect();
        assert_eq!(all, [(None, 4), (Some(80), 22), (Some(443), 6)]);
    }
}
