//! Container images, made without a registry or a container engine: a set of files, written as an OCI archive.
//!
//! The same content makes the same archive, byte for byte.

mod archive;
mod debian;
mod files;
mod programs;

use std::path::Path;

use anyhow::Result;

use self::files::Files;
use super::node::PAUSE_IMAGE;
use crate::binaries;

/// An image of one layer.
pub struct Image {
    /// With a registry's name and a tag, as pods name it.
    name: String,
    files: Files,
    entrypoint: Vec<String>,
}

impl Image {
    /// An image with a few files that programs want to be there, and nothing to run.
    pub fn empty(name: &str) -> Self {
        Self { name: name.to_owned(), files: Files::base(), entrypoint: Vec::new() }
    }

    /// Of programs of this machine, with the shared libraries that they are linked with. The first one is what it runs.
    ///
    /// # Errors
    /// When one cannot be found or read.
    pub fn of_programs(name: &str, programs: &[impl AsRef<Path>]) -> Result<Self> {
        let mut image = Self::empty(name);
        for program in programs {
            image.add_program(program)?;
        }
        Ok(image)
    }

    /// The first process of each pod.
    pub fn pause() -> Self {
        let mut files = Files::default();
        files.add_file("/pause", &binaries::cluster_program("pause"));
        Self { name: PAUSE_IMAGE.to_owned(), files, entrypoint: vec!["/pause".to_owned()] }
    }

    /// The program that plays scripts.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn probe(name: &str) -> Result<Self> {
        Self::of_programs(name, &[binaries::probe()])
    }

    /// Of Debian packages: the files of all packages in a directory.
    ///
    /// # Errors
    /// When one cannot be unpacked.
    pub fn of_packages(name: &str, packages: &Path) -> Result<Self> {
        let mut image = Self::empty(name);
        debian::add(packages, &mut image.files)?;
        Ok(image)
    }

    /// Adds a program of this machine at `/usr/bin`, with its libraries. The first one is what the image runs.
    ///
    /// # Errors
    /// When it cannot be found or read.
    pub fn add_program(&mut self, program: impl AsRef<Path>) -> Result<()> {
        let at = programs::add(program.as_ref(), &mut self.files)?;
        if self.entrypoint.is_empty() {
            self.entrypoint.push(at);
        }
        Ok(())
    }

    /// Adds a file with this text.
    pub fn add_text(&mut self, at: &str, text: &str) {
        self.files.add_text(at, text);
    }

    /// Adds an empty directory that everybody may write to.
    pub fn add_dir(&mut self, at: &str) {
        self.files.add_dir(at, 0o1777);
    }

    /// Sets what it runs.
    pub fn entrypoint(&mut self, command: &[&str]) {
        self.entrypoint = command.iter().map(|word| (*word).to_owned()).collect();
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes an OCI archive.
    ///
    /// # Errors
    /// When a file of the image cannot be read, or the archive not written.
    pub fn write(&self, output: &Path) -> Result<()> {
        archive::write(self, output)
    }
}
