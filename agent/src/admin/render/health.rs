//! Health as people read it.

use serde_json::Value;

use super::{list, text};

/// Renders the answer to `alive` or `ready`: a line for each thing that is missing.
#[must_use]
pub fn render_health(health: &Value) -> String {
    if is_healthy(health) {
        return "ok\n".to_owned();
    }
    list(&health["problems"]).iter().map(|problem| format!("{}\n", text(problem))).collect()
}

/// True if nothing is missing.
#[must_use]
pub fn is_healthy(health: &Value) -> bool {
    health["ok"] == true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_problem_has_a_line_and_health_is_one_word() {
        let problems = json!({"ok": false, "problems": ["one is missing", "so is another"]});
        assert_eq!(render_health(&problems), "one is missing\nso is another\n");
        assert!(!is_healthy(&problems));
        let healthy = json!({"ok": true, "problems": []});
        assert_eq!(render_health(&healthy), "ok\n");
        assert!(is_healthy(&healthy));
    }
}
