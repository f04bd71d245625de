//! README.md's first configuration, as it stands there.

/// The heading that it stands under.
const HEADING: &str = "## First configuration: two services on two hosts";

/// What somebody does who follows README.md.
#[derive(Debug, PartialEq, Eq)]
pub struct FirstConfiguration {
    /// On one host.
    pub authority: String,
    /// `/etc/sheath/sheath.yaml` of the server's host.
    pub server: String,
    /// The same of the client's.
    pub client: String,
    /// On each host.
    pub commands: String,
}

impl FirstConfiguration {
    /// Reads it out of README.md.
    ///
    /// # Panics
    /// When it is not there, or has other blocks of code than this knows what to do with.
    pub fn read(readme: &str) -> Self {
        let (_, section) = readme.split_once(HEADING).expect("the first configuration");
        let section = section.split("\n## ").next().unwrap_or_default();
        let blocks = blocks(section);
        let [authority, server, client, commands, _shown] = &blocks[..] else {
            panic!("not the blocks that there were: {blocks:#?}");
        };
        let [authority, server, client, commands] =
            [authority, server, client, commands].map(|block| block.join("\n") + "\n");
        Self { authority, server, client, commands }
    }
}

/// The lines of each block between fences.
fn blocks(text: &str) -> Vec<Vec<&str>> {
    let mut blocks = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_inside = !is_inside;
            if is_inside {
                blocks.push(Vec::new());
            }
        } else if let (true, Some(block)) = (is_inside, blocks.last_mut()) {
            block.push(line);
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_of_this_repository_has_it() {
        let first = FirstConfiguration::read(include_str!("../../../README.md"));
        assert!(first.authority.starts_with("sheath ca init "), "{first:?}");
        assert!(first.server.contains("systemdUnit: nginx.service"), "{first:?}");
        assert!(first.client.contains("systemdUnit: client.service"), "{first:?}");
        assert!(first.commands.contains("systemctl enable --now sheath\n"), "{first:?}");
    }

    #[test]
    fn vagrants_hosts_are_given_it() {
        let first = FirstConfiguration::read(include_str!("../../../README.md"));
        let provision = include_str!("../../../deploy/vagrant/provision.sh");
        for file in [first.server, first.client] {
            assert!(provision.contains(&file), "not in provision.sh:\n{file}");
        }
    }
}
