//! What is in a package, and where: the same in both kinds, below another directory.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::tree::{PROGRAM, Tree, read};
use super::{Content, configuration_page, shown};
use crate::{command, workspace};

/// Where the unit of the repository has the agent.
const PROGRAM_IN_UNIT: &str = "/usr/local/bin/sheath";

const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];
const PAGES: [&str; 5] =
    ["field-mapping.md", "identity.md", "kernels.md", "kubernetes.md", "wire.md"];

/// Where things go.
pub struct Layout {
    /// What all paths begin with in the package, with a slash unless it is empty.
    root: String,
    /// And on a host.
    prefix: &'static str,
    /// Below it, where zsh looks for completions that come with packages.
    zsh: &'static str,
}

impl Layout {
    /// What an administrator installs by hand. Service manager, man and shells look below /usr/local as well.
    pub const LOCAL: Self =
        Self { root: String::new(), prefix: "/usr/local", zsh: "share/zsh/site-functions" };
    /// A package of Debian.
    pub const DEBIAN: Self =
        Self { root: String::new(), prefix: "/usr", zsh: "share/zsh/vendor-completions" };

    /// The same in a directory of the package.
    pub fn below(self, dir: &str) -> Self {
        Self { root: format!("{dir}/"), ..self }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }
}

/// # Errors
/// When something is missing, or the agent does not say what it is asked.
pub fn fill(tree: &Tree, layout: &Layout, content: &Content) -> Result<()> {
    tree.write_as(PROGRAM, &layout.at("bin/sheath"), read(&content.program)?)?;
    tree.write(&layout.at("lib/systemd/system/sheath.service"), unit(layout)?)?;
    man_pages(tree, layout, content)?;
    let completions = [
        ("bash", "share/bash-completion/completions/sheath".to_owned()),
        ("zsh", format!("{}/_sheath", layout.zsh)),
        ("fish", "share/fish/vendor_completions.d/sheath.fish".to_owned()),
    ];
    for (shell, path) in completions {
        let text = command::output(agent(content).args(["completions", shell]))?;
        tree.write(&layout.at(&path), text)?;
    }
    for name in DOCUMENTS {
        tree.copy(name, &layout.at(&format!("share/doc/sheath/{name}")))?;
    }
    for name in PAGES {
        tree.copy(&format!("docs/{name}"), &layout.at(&format!("share/doc/sheath/docs/{name}")))?;
    }
    let example = layout.at("share/doc/sheath/examples/sheath.yaml");
    tree.copy("deploy/sheath.example.yaml", &example)
}

/// The unit, which names the program by its whole path.
fn unit(layout: &Layout) -> Result<String> {
    let unit = workspace::root().join("deploy/systemd/sheath.service");
    let unit = String::from_utf8(read(&unit)?).context("the unit is no text")?;
    ensure!(unit.contains(PROGRAM_IN_UNIT), "the unit does not start {PROGRAM_IN_UNIT}");
    Ok(unit.replace(PROGRAM_IN_UNIT, &format!("{}/bin/sheath", layout.prefix)))
}

/// The agent, which knows its commands best. One for another kind of machine runs on an emulated processor.
fn agent(content: &Content) -> Command {
    match content.linkage.architecture.emulator() {
        None => command::plain(&content.program),
        Some(emulator) => {
            let mut command = command::plain(emulator);
            command.arg(&content.program);
            command
        }
    }
}

fn man_pages(tree: &Tree, layout: &Layout, content: &Content) -> Result<()> {
    let commands = tree.make_dir(&layout.at("share/man/man8"))?;
    command::run(agent(content).arg("manual").arg("--dir").arg(&commands))?;
    let configuration = layout.at("share/man/man5/sheath.yaml.5");
    tree.write(&configuration, configuration_page::render()?)?;
    let mut pages = vec![tree.path().join(configuration)];
    for page in fs::read_dir(&commands).with_context(|| shown(&commands))? {
        pages.push(page?.path());
    }
    // Neither name nor time: the same page is the same file.
    command::run(command::plain("gzip").args(["-9", "-n"]).args(pages))
}
