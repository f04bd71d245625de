//! What the kernel counts, and how full its maps are: read when somebody asks.

use std::io;
use std::sync::Arc;

use sheath_common::counters::Counter;

use super::maps::Maps;
use crate::metrics::{Label, Registry, RegistryError, Scalar};

/// Maps that have an entry for each connection of some kind, and none when there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionMap {
    Flows,
    Clients,
    Wires,
    Probes,
}

impl Label for ConnectionMap {
    const NAME: &'static str = "map";
    const ALL: &'static [Self] = &[Self::Flows, Self::Clients, Self::Wires, Self::Probes];

    fn index(self) -> usize {
        self as usize
    }

    fn value(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Clients => "clients",
            Self::Wires => "wires",
            Self::Probes => "probes",
        }
    }
}

impl Maps {
    /// Registers the programs' counters, and the entries of the maps that follow connections.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) -> Result<(), RegistryError> {
        let (counters, maps) = (self.clone(), self.clone());
        register(registry, move |counter| counters.counted(counter), move |map| maps.entries(map))
    }

    fn entries(&self, map: ConnectionMap) -> io::Result<u64> {
        let keys = match map {
            ConnectionMap::Flows => self.flows.keys()?.len(),
            ConnectionMap::Clients => self.clients.count()?,
            ConnectionMap::Wires => self.wires.keys()?.len(),
            ConnectionMap::Probes => self.probes.open_probes()?,
        };
        Ok(keys as u64)
    }
}

fn register(
    registry: &mut Registry,
    counted: impl Fn(Counter) -> io::Result<u64> + Clone + Send + Sync + 'static,
    entries: impl Fn(ConnectionMap) -> io::Result<u64> + Send + Sync + 'static,
) -> Result<(), RegistryError> {
    for counter in Counter::ALL {
        let counted = counted.clone();
        let read = move || counted(counter).ok();
        registry.register_read(Scalar::Counter, counter.name(), counter.help(), read)?;
    }
    registry.register_read_by(
        Scalar::Gauge,
        "map_entries",
        "Connections that maps of the kernel have an entry for.",
        move |map| entries(map).ok(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_a_name_and_a_help_text_and_its_own_slot() {
        let mut registry = Registry::new(|_| None);
        let entries = |map| match map {
            ConnectionMap::Clients => Err(io::ErrorKind::NotFound.into()),
            map => Ok(100 + Label::index(map) as u64),
        };
        register(&mut registry, |counter| Ok(counter as u64), entries).unwrap();
        let counted = registry.snapshot();
        for counter in Counter::ALL {
            assert_eq!(counted.total(counter.name()), counter as u64, "{counter:?}");
        }
        let entries = |map| counted.labelled("map_entries", "map", map);
        assert_eq!((entries("flows"), entries("wires")), (100, 102));
        assert_eq!(counted.family("map_entries").unwrap().series.len(), 3, "what can be read");
    }
}
