//! What the agent tells, as people read it.

mod certificates;
mod metrics;
mod status;

use serde_json::Value;

pub use certificates::{are_well, render as render_certificates};
pub use status::{is_well, render_status};

/// Colours, where they are wanted.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    /// A state in a column of its own.
    fn state(self, state: &str) -> String {
        let code = match state {
            "protected" | "ok" => "32",
            "degraded" | "expired" | "missing" => "31",
            _ => "33",
        };
        if self.0 { format!("\x1b[{code}m{state:<10}\x1b[0m") } else { format!("{state:<10}") }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// Width of a column.
fn width(rows: &[Value], key: &str, least: usize) -> usize {
    rows.iter().map(|row| text(&row[key]).chars().count()).max().unwrap_or(0).max(least)
}
