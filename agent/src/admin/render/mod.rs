//! What the agent tells, as people read it.

mod certificates;
mod health;
mod metrics;
mod status;
mod workloads;

use serde_json::Value;

use crate::terminal::{Cell, Mood};

pub use certificates::{are_well, render as render_certificates};
pub use health::{is_healthy, render_health};
pub use status::{is_well, render_status};

/// A state in its colour.
fn state(state: &Value) -> Cell {
    let state = text(state);
    let mood = match state {
        "protected" | "ok" => Mood::Good,
        "degraded" | "expired" | "missing" => Mood::Bad,
        _ => Mood::Doubtful,
    };
    Cell::in_mood(state, mood)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
