//! A plain copy relay of our own.

use anyhow::Result;
use sheath_tests::interop::Program;

use super::Hop;
use crate::play::Play;

pub fn start(hop: &Hop<'_>) -> Result<Program> {
    let mut command = Play::Relay { ways: hop.ways() }.command(&hop.place)?;
    Ok(hop.start("relay", &mut command))
}
