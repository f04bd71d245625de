//! The `sheath` command.

fn main() -> std::process::ExitCode {
    sheath::cli::main()
}
