//! What is measured: figures, memory, and how long a thread is kept.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use tabwriter::TabWriter;

use crate::cluster::Size;

/// All that has been found out. Each is told at once, on stderr.
#[derive(Default)]
pub struct Figures(Vec<Figure>);

/// A figure, with its unit.
struct Figure {
    key: &'static str,
    what: &'static str,
    value: f64,
    unit: &'static str,
}

impl Figures {
    pub fn tell(&mut self, key: &'static str, what: &'static str, value: f64, unit: &'static str) {
        eprintln!("{what}: {value:.2} {unit}");
        self.0.push(Figure { key, what, value, unit });
    }

    pub fn tell_ms(&mut self, key: &'static str, what: &'static str, took: Duration) {
        self.tell(key, what, took.as_secs_f64() * 1000.0, "ms");
    }

    pub fn tell_mib(&mut self, key: &'static str, what: &'static str, bytes: f64) {
        self.tell(key, what, bytes / f64::from(1 << 20), "MiB");
    }

    pub fn json(&self, size: Size) -> Value {
        let one = |figure: &Figure| {
            (figure.key.to_owned(), json!({"value": figure.value, "unit": figure.unit}))
        };
        let all: Map<_, _> = self.0.iter().map(one).collect();
        json!({"pods": size.pods, "agents": size.agents, "figures": all})
    }

    /// # Errors
    /// When nobody reads it.
    pub fn write_table(&self, size: Size, out: impl Write) -> Result<()> {
        let mut table = TabWriter::new(out);
        writeln!(table, "{} pods, {} agents\t\t", size.pods, size.agents)?;
        for Figure { what, value, unit, .. } in &self.0 {
            let digits = if value.fract() == 0.0 { 0 } else { 2 };
            writeln!(table, "{what}\t{value:.digits$}\t{unit}")?;
        }
        table.flush().context("cannot write the table")
    }
}

/// Bytes that the process has resident.
pub fn resident() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = text.split(' ').nth(1).context("statm")?.parse()?;
    Ok(pages * 4096.0)
}

/// The longest time that a thread of the runtime was kept from a task that is due every millisecond.
pub struct Stall {
    longest: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Stall {
    pub fn watch() -> Self {
        let longest = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, end) = (longest.clone(), ended.clone());
        tokio::spawn(async move {
            while !end.load(Ordering::Relaxed) {
                let due = Instant::now() + Duration::from_millis(1);
                tokio::time::sleep_until(due.into()).await;
                let late = Instant::now().saturating_duration_since(due).as_micros() as u64;
                seen.fetch_max(late, Ordering::Relaxed);
            }
        });
        Self { longest, ended }
    }

    /// Ends the watch.
    pub fn longest(self) -> Duration {
        self.ended.store(true, Ordering::Relaxed);
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }
}
