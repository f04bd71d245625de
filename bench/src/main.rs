//! The benchmark's program; see the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    sheath_bench::cli::main(sheath_bench::cli::Cli::parse())
}
