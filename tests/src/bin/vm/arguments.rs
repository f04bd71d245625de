//! The command line, which `cargo xtask vm` writes.

use std::ffi::OsString;
use std::path::PathBuf;

use sheath_tests::vm::{Images, Kernel};

pub const USAGE: &str = "usage: vm --list
       vm --root DISK --programs DISK --kernel NAME DIR ... [--table FILE KERNELS] [--core] [--script TEXT | SCENARIO ...]";

pub struct Arguments {
    pub list: bool,
    pub images: Images,
    pub kernels: Vec<Kernel>,
    /// Where the results are written, and the kernels that the table has, by comma.
    pub table: Option<(PathBuf, String)>,
    /// To be run in a machine of the first kernel, in place of scenarios.
    pub script: Option<String>,
    core: bool,
    scenarios: Vec<String>,
}

/// What tells most in a few minutes.
const CORE: [&str; 12] = [
    "boot",
    "check",
    "programs",
    "capture",
    "refusal",
    "guards",
    "killed",
    "restart",
    "enrolment",
    "first_configuration",
    "restarted",
    "reboot_of_the_client",
];

impl Arguments {
    pub fn read(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let images = Images { root: PathBuf::new(), programs: PathBuf::new() };
        let mut read = Self {
            list: false,
            images,
            kernels: Vec::new(),
            table: None,
            script: None,
            core: false,
            scenarios: Vec::new(),
        };
        while let Some(word) = words.next() {
            let word = word.into_string().ok()?;
            match word.as_str() {
                "--list" => read.list = true,
                "--core" => read.core = true,
                "--root" => read.images.root = words.next()?.into(),
                "--programs" => read.images.programs = words.next()?.into(),
                "--table" => {
                    let file = words.next()?.into();
                    read.table = Some((file, words.next()?.into_string().ok()?));
                }
                "--script" => read.script = Some(words.next()?.into_string().ok()?),
                "--kernel" => {
                    let name = words.next()?.into_string().ok()?;
                    read.kernels.push(Kernel { name, dir: words.next()?.into() });
                }
                option if option.starts_with('-') => return None,
                _ => read.scenarios.push(word),
            }
        }
        Some(read)
    }

    /// Whether a scenario was asked for: by its name, or by a part of it that is no scenario's name.
    pub fn chooses(&self, name: &str, names: &[&str]) -> bool {
        let is_meant = |part: &String| {
            if names.contains(&part.as_str()) { name == part } else { name.contains(part.as_str()) }
        };
        (!self.core || CORE.contains(&name))
            && (self.scenarios.is_empty() || self.scenarios.iter().any(is_meant))
    }
}
