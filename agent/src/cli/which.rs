//! Which agent of the host a command is about: by its configuration file or by its name, for every command alike.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::{Config, DEFAULT_INSTANCE, DEFAULT_RUN_DIR, Instance, default_instance};

/// Where configurations are by default.
const DIRECTORY: &str = "/etc/sheath";

#[derive(clap::Args)]
pub struct Which {
    /// The agent's configuration file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["instance", "run_dir"])]
    config: Option<PathBuf>,
    /// The agent's name, in place of its configuration; that is then /etc/sheath/sheath.yaml for `default`, and
    /// /etc/sheath/NAME.yaml for any other [default: default]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// The agent's runDir, where it is not the default one [default: /run/sheath]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
}

impl Which {
    /// The instance, for commands that need no more than that.
    pub fn instance(&self) -> Result<Instance, Failure> {
        match &self.config {
            Some(path) => Instance::of_file(path).map_err(Failure::usage),
            None => self.named().map_err(Failure::usage),
        }
    }

    /// The configuration, and where it is.
    pub fn load(&self) -> Result<(PathBuf, Config), Failure> {
        let path = self.file()?;
        let config = Config::load(&path).map_err(Failure::usage)?;
        self.check_file(&path, &config.instance).map_err(Failure::usage)?;
        Ok((path, config))
    }

    /// True if the command line says nothing about it.
    pub fn is_left_open(&self) -> bool {
        self.config.is_none() && self.instance.is_none() && self.run_dir.is_none()
    }

    fn file(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.config {
            return Ok(path.clone());
        }
        let instance = self.named().map_err(Failure::usage)?;
        let name = if instance.name == DEFAULT_INSTANCE { "sheath" } else { &instance.name };
        Ok(Path::new(DIRECTORY).join(format!("{name}.yaml")))
    }

    fn named(&self) -> Result<Instance, String> {
        let run_dir = self.run_dir.as_deref().unwrap_or(Path::new(DEFAULT_RUN_DIR));
        let name = self.instance.clone().unwrap_or_else(default_instance);
        Instance::new(&name, run_dir).map_err(|error| error.to_string())
    }

    /// What the command line says must be what the file says: an agent that runs under another name than it was asked for
    /// would be found by nobody.
    fn check_file(&self, path: &Path, found: &Instance) -> Result<(), String> {
        if self.config.is_some() {
            return Ok(());
        }
        let meant = self.named()?;
        if meant.name != found.name {
            return Err(format!(
                "{} is the configuration of the instance `{}`, not of `{}`",
                path.display(),
                found.name,
                meant.name
            ));
        }
        match &self.run_dir {
            Some(_) if meant != *found => {
                Err(format!("{} says another runDir than --run-dir", path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn which(config: Option<&str>, instance: Option<&str>) -> Which {
        Which {
            config: config.map(PathBuf::from),
            instance: instance.map(str::to_owned),
            run_dir: None,
        }
    }

    fn file(which: &Which) -> PathBuf {
        which.file().map_err(|failure| failure.message).unwrap()
    }

    #[test]
    fn a_name_stands_for_a_file_and_a_file_for_a_name() {
        assert_eq!(file(&which(None, None)), Path::new("/etc/sheath/sheath.yaml"));
        assert_eq!(file(&which(None, Some("default"))), Path::new("/etc/sheath/sheath.yaml"));
        assert_eq!(file(&which(None, Some("blue"))), Path::new("/etc/sheath/blue.yaml"));
        assert_eq!(file(&which(Some("/x.yaml"), None)), Path::new("/x.yaml"));
        assert!(which(None, Some("../x")).file().is_err());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.yaml");
        std::fs::write(&path, "instance: green\nrunDir: /run/y\n").unwrap();
        let found = which(path.to_str(), None).instance().map_err(|failure| failure.message);
        assert_eq!(found, Ok(Instance::new("green", Path::new("/run/y")).unwrap()));
    }

    #[test]
    fn a_file_of_another_instance_is_not_taken_for_the_one_that_is_meant() {
        let green = Instance::new("green", Path::new(DEFAULT_RUN_DIR)).unwrap();
        let blue = which(None, Some("blue"));
        let error = blue.check_file(Path::new("/etc/sheath/blue.yaml"), &green).unwrap_err();
        assert!(error.contains("of the instance `green`, not of `blue`"), "{error}");
        assert_eq!(which(None, Some("green")).check_file(Path::new("x"), &green), Ok(()));
        assert_eq!(which(Some("x"), None).check_file(Path::new("x"), &green), Ok(()));
        let elsewhere = Which { run_dir: Some("/run/y".into()), ..which(None, Some("green")) };
        assert!(elsewhere.check_file(Path::new("x"), &green).unwrap_err().contains("runDir"));
    }
}
