//! How clusters are shown.

use std::io::Write;

use anyhow::{Context, Result};
use sheath_tests::cluster::status::Status;
use tabwriter::TabWriter;

/// One line for each cluster, and one for each program of those that are not well.
pub fn text(clusters: &[Status]) -> Result<()> {
    if clusters.is_empty() {
        println!("no cluster; `cargo xtask cluster up` brings one up");
        return Ok(());
    }
    let mut table = TabWriter::new(Vec::new());
    writeln!(table, "CLUSTER\tMACHINE\tPROGRAM\tPID")?;
    for cluster in clusters {
        for program in &cluster.programs {
            let pid = program.pid.map_or_else(|| "ended".to_owned(), |pid| pid.to_string());
            writeln!(table, "{}\t{}\t{}\t{pid}", cluster.name, program.machine, program.program)?;
        }
    }
    let table = table.into_inner().context("a table")?;
    print!("{}", String::from_utf8(table)?);
    for cluster in clusters {
        let state = if cluster.healthy { "all programs run" } else { "not all programs run" };
        println!("{}: {state}, {} processes in all", cluster.name, cluster.processes.len());
        for program in cluster.programs.iter().filter(|program| program.pid.is_none()) {
            println!("  see {}", program.log);
        }
    }
    Ok(())
}

/// All that is known, as one JSON array.
pub fn json(clusters: &[Status]) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(clusters)?);
    Ok(())
}

/// What has to be added to a command that is about this cluster.
pub fn option(name: &str) -> String {
    if name == "dev" { String::new() } else { format!(" --name {name}") }
}
