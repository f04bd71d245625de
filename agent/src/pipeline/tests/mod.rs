//! Flows that move between agents over real connections.

mod moving;
mod refused;
mod saved;
