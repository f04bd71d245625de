//! `docs/benchmarks.svg`: bars, each as long as the contender's figure is relative to the plain relays or to no proxy at
//! all. Colours follow the reader's preference for light or dark.

use std::fmt::Write;

use super::number;
use crate::contender::{DIRECT, Entry, RELAY, SHEATH};
use crate::load::idle::FLOW_CLIENT;
use crate::load::names::{CPU_CLIENT, P50, P99, RATE};
use crate::results::Results;
use crate::run::Plan;
use crate::statistics::median;

/// One comparison.
struct Panel {
    title: &'static str,
    load: &'static str,
    quantity: &'static str,
    /// Whose figure is 1. None: the figures stand for themselves.
    base: Option<&'static str>,
    note: &'static str,
}

const PANELS: [Panel; 10] = [
    Panel {
        title: "Throughput, one stream",
        load: "throughput_1",
        quantity: RATE,
        base: Some(RELAY),
        note: "relative to two plain relays; longer is better",
    },
    Panel {
        title: "Throughput, 16 streams",
        load: "throughput_16",
        quantity: RATE,
        base: Some(RELAY),
        note: "relative to two plain relays; longer is better",
    },
    Panel {
        title: "New connections, one after the other",
        load: "connect_1",
        quantity: RATE,
        base: Some(DIRECT),
        note: "relative to direct; longer is better",
    },
    Panel {
        title: "New connections, 32 at once",
        load: "connect_32",
        quantity: RATE,
        base: Some(DIRECT),
        note: "relative to direct; longer is better",
    },
    Panel {
        title: "redis GET, 50 clients",
        load: "redis",
        quantity: "get",
        base: Some(DIRECT),
        note: "relative to direct; longer is better",
    },
    Panel {
        title: "HTTP requests, 32 clients",
        load: "http",
        quantity: RATE,
        base: Some(DIRECT),
        note: "relative to direct; longer is better",
    },
    Panel {
        title: "Round trip of 100 bytes, p50",
        load: "pingpong_100",
        quantity: P50,
        base: Some(DIRECT),
        note: "relative to direct; shorter is better",
    },
    Panel {
        title: "Round trip of 100 bytes, p99",
        load: "pingpong_100",
        quantity: P99,
        base: Some(DIRECT),
        note: "relative to direct; shorter is better",
    },
    Panel {
        title: "CPU per GB, client side",
        load: "throughput_1",
        quantity: CPU_CLIENT,
        base: Some(RELAY),
        note: "relative to two plain relays; shorter is better",
    },
    Panel {
        title: "RSS per idle flow, client side",
        load: "idle",
        quantity: FLOW_CLIENT,
        base: None,
        note: "KiB; shorter is better",
    },
];

const WIDTH: u32 = 880;
const COLUMNS: u32 = 2;
const MARGIN: u32 = 20;
const COLUMN: u32 = (WIDTH - MARGIN) / COLUMNS;
const HEAD: u32 = 46;
const ROW: u32 = 19;
const BAR: u32 = 13;
const LABEL: u32 = 90;
const VALUE: u32 = 56;
const LONGEST: u32 = COLUMN - MARGIN - LABEL - VALUE;

const STYLE: &str = "
    text { font: 12px system-ui, sans-serif; fill: #1f2328; }
    .title { font-weight: 600; font-size: 13px; }
    .note { fill: #59636e; font-size: 11px; }
    .bar { fill: #afb8c1; }
    .own { fill: #0969da; }
    .ground { fill: #ffffff; }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; }
      .note { fill: #9198a1; }
      .bar { fill: #656c76; }
      .own { fill: #4493f8; }
      .ground { fill: #0d1117; }
    }
  ";

pub fn render(plan: &Plan, results: &Results) -> String {
    let mut body = String::new();
    let mut top = MARGIN;
    for panels in PANELS.chunks(COLUMNS as usize) {
        let mut height = 0;
        for (panel, column) in panels.iter().zip(0..) {
            let bars = bars(panel, plan, results);
            height = height.max(HEAD + bars.len() as u32 * ROW + MARGIN);
            body += &draw(panel, &bars, MARGIN + column * COLUMN, top);
        }
        top += height;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" \
         width=\"{WIDTH}\" height=\"{top}\" role=\"img\">
  <title>Sheath and other proxies under the same load</title>
  <style>{STYLE}</style>
  <rect class=\"ground\" width=\"{WIDTH}\" height=\"{top}\"/>
{body}</svg>
"
    )
}

/// A contender's name and number.
fn bars<'p>(panel: &Panel, plan: &'p Plan, results: &Results) -> Vec<(&'p str, f64)> {
    let value = |entry: &Entry| match panel.base {
        Some(base) => median(&results.ratios(&entry.name, base, panel.load, panel.quantity)),
        None => median(&results.values(&entry.name, panel.load, panel.quantity)),
    };
    let named = |entry: &'p Entry| Some((entry.name.as_str(), value(entry)?));
    plan.contenders.iter().filter_map(named).collect()
}

fn draw(panel: &Panel, bars: &[(&str, f64)], left: u32, top: u32) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "  <g transform=\"translate({left} {top})\">
    <text class=\"title\" y=\"12\">{}</text>
    <text class=\"note\" y=\"28\">{}</text>",
        escape(panel.title),
        escape(panel.note)
    );
    let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    for ((name, value), index) in bars.iter().zip(0..) {
        let y = HEAD - 10 + index * ROW;
        let length = (value.max(0.0) / longest * f64::from(LONGEST)).max(1.0);
        let class = if *name == SHEATH { "own" } else { "bar" };
        let baseline = y + BAR - 3;
        let behind = f64::from(LABEL) + length + 6.0;
        let _ = writeln!(
            text,
            "    <text y=\"{baseline}\">{}</text>
    <rect class=\"{class}\" x=\"{LABEL}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>
    <text x=\"{behind:.1}\" y=\"{baseline}\">{}</text>",
            escape(name),
            number(*value)
        );
    }
    text + "  </g>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;
    use crate::load;

    /// Every element that is opened is closed, in order; there is no stray `<` or `&`.
    fn assert_well_formed(text: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('<') {
            let (before, tag) = rest.split_at(at);
            assert!(
                !before.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").contains('&')
            );
            let (tag, behind) = tag[1..].split_once('>').expect("the end of a tag");
            assert!(!tag.contains('<') && tag.matches('"').count() % 2 == 0, "<{tag}>");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split_whitespace().next().expect("a name")),
            }
            rest = behind;
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest:?}");
    }

    #[test]
    fn the_plot_is_well_formed_whatever_contenders_are_called() {
        let mut plan = example::plan();
        plan.contenders.last_mut().unwrap().name = "<b> & \"c\"".to_owned();
        let text = render(&plan, &example::results(&plan));
        assert_well_formed(&text);
        assert_well_formed(&render(&plan, &Results::default()));
        assert!(text.contains("&lt;b&gt; &amp;") && text.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn the_longest_bar_has_the_full_length() {
        let plan = example::plan();
        let text = render(&plan, &example::results(&plan));
        assert!(text.contains(&format!("width=\"{LONGEST}.0\"")));
        assert_eq!(text.matches("class=\"own\"").count(), PANELS.len());
    }

    /// A typo would be an empty panel.
    #[test]
    fn every_panel_shows_something_that_is_measured() {
        let all = load::all();
        for panel in &PANELS {
            let load = all.iter().find(|load| load.name() == panel.load).expect(panel.load);
            let mut quantities = load.quantities().iter();
            assert!(quantities.any(|quantity| quantity.name == panel.quantity), "{}", panel.title);
        }
    }
}
