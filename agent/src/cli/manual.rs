//! Man pages and completions, made from the same description as the command line itself.

use std::fs;
use std::io::{self, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::{Cli, Failure};

/// Of man(1): what administrators use.
const SECTION: &str = "8";

#[derive(clap::Args)]
pub struct Completions {
    /// For which shell
    shell: Shell,
}

#[derive(clap::Args)]
pub struct Manual {
    /// An existing directory, for a page of each command
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl Completions {
    /// Writes them to stdout.
    pub fn run(&self) -> Result<ExitCode, Failure> {
        // In one piece: to write to a reader that has gone, as `head` does, is no reason to panic.
        stdout().write_all(&completions(self.shell)).map_err(Failure::new)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "sheath", &mut text);
    text
}

impl Manual {
    /// Writes the pages, in the format of man(7).
    pub fn run(&self) -> Result<ExitCode, Failure> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        write_pages(&command, &self.dir).map_err(|error| {
            Failure::new(format!("cannot write man pages to {}: {error}", self.dir.display()))
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the pages of a command and of all below it.
fn write_pages(command: &Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, dir)?;
    }
    let page = Man::new(command.clone())
        .section(SECTION)
        .source(concat!("sheath ", env!("CARGO_PKG_VERSION")))
        .manual("Sheath");
    let mut text = Vec::new();
    page.render(&mut text)?;
    writeln!(text, ".SH SEE ALSO\n{}", see_also(command))?;
    fs::write(dir.join(page.get_filename()), text)
}

fn see_also(command: &Command) -> String {
    let others = command.get_display_name().is_some_and(|name| name != "sheath");
    let first = if others { format!("sheath({SECTION}), ") } else { String::new() };
    format!("{first}sheath.yaml(5), /usr/share/doc/sheath/README.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of a command and of all below it, as pages are called.
    fn names(command: &Command) -> Vec<String> {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let below = command.get_subcommands().filter(|below| !below.is_hide_set());
        [name.to_owned()].into_iter().chain(below.flat_map(names)).collect()
    }

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        Manual { dir: dir.path().to_owned() }.run().ok().unwrap();
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let mut wanted: Vec<String> =
            names(&command).iter().map(|name| format!("{name}.8")).collect();
        wanted.sort();
        assert!(wanted.contains(&"sheath-ca-init.8".to_owned()), "{wanted:?}");
        let found = fs::read_dir(dir.path()).unwrap();
        let mut found: Vec<String> =
            found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, wanted);
        let page = fs::read_to_string(dir.path().join("sheath-run.8")).unwrap();
        assert!(page.contains(".TH sheath-run 8"), "{page}");
        assert!(page.contains("take\\-over"), "{page}");
    }

    #[test]
    fn each_shell_gets_the_commands_and_their_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(completions(shell)).unwrap();
            for word in ["await-cleanup", "replace", "take-over", "trust-domain"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
