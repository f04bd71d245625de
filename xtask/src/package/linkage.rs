//! What a program runs on: read from the program itself, so that what the package says of it is true.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::elf::{DT_NEEDED, EM_AARCH64, EM_X86_64, FileHeader64};
use object::endian::Endianness;
use object::read::elf::{Dyn, FileHeader};

use super::tree::read;
use crate::architecture::Architecture;

#[derive(Debug, PartialEq, Eq)]
pub struct Linkage {
    pub architecture: Architecture,
    /// Debian packages that have its shared libraries, as in `Depends`. A static program needs none.
    pub depends: Vec<String>,
}

/// A version of the C library's interface, `GLIBC_2.34`.
type Glibc = (u32, u32);

impl Linkage {
    /// # Errors
    /// When the file is no program for a machine that is known here, or needs a library that is not.
    pub fn of(program: &Path) -> Result<Self> {
        Self::read(&read(program)?).with_context(|| format!("cannot package {}", program.display()))
    }

    fn read(program: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(program)?;
        let endian = header.endian()?;
        let architecture = match header.e_machine(endian) {
            EM_X86_64 => Architecture::Amd64,
            EM_AARCH64 => Architecture::Arm64,
            other => bail!("it is for another machine (ELF's number {other})"),
        };
        let sections = header.sections(endian, program)?;
        let mut packages: BTreeMap<&str, Option<Glibc>> = BTreeMap::new();
        if let Some((entries, strings)) = sections.dynamic(endian, program)? {
            let strings = sections.strings(endian, program, strings)?;
            for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
                packages.entry(package_of(entry.string(endian, strings)?)?).or_default();
            }
        }
        if let Some((needs, strings)) = sections.gnu_verneed(endian, program)? {
            let strings = sections.strings(endian, program, strings)?;
            for need in needs {
                let (need, versions) = need?;
                let package = package_of(need.file(endian, strings)?)?;
                if package != LIBC {
                    continue;
                }
                let newest = packages.entry(package).or_default();
                for version in versions {
                    *newest = (*newest).max(Some(glibc(version?.name(endian, strings)?)?));
                }
            }
        }
        let depends = packages.into_iter().map(|(package, newest)| match newest {
            Some((major, minor)) => format!("{package} (>= {major}.{minor})"),
            None => package.to_owned(),
        });
        Ok(Self { architecture, depends: depends.collect() })
    }
}

const LIBC: &str = "libc6";

/// Debian's package of a shared library.
fn package_of(library: &[u8]) -> Result<&'static str> {
    let library = String::from_utf8_lossy(library);
    Ok(match &*library {
        "libc.so.6"
        | "libm.so.6"
        | "libdl.so.2"
        | "libpthread.so.0"
        | "librt.so.1"
        | "ld-linux-x86-64.so.2"
        | "ld-linux-aarch64.so.1" => LIBC,
        "libgcc_s.so.1" => "libgcc-s1",
        _ => bail!("it needs {library}, and no Debian package of that is known here"),
    })
}

fn glibc(version: &[u8]) -> Result<Glibc> {
    let name = String::from_utf8_lossy(version);
    // A property of the loader, since that version.
    if name == "GLIBC_ABI_DT_RELR" {
        return Ok((2, 36));
    }
    let numbers = name.strip_prefix("GLIBC_").and_then(|version| version.split_once('.'));
    // Small steps, as 2.2.5, are older than whatever Rust runs on.
    let minor = |text: &str| text.split('.').next().and_then(|minor| minor.parse().ok());
    let parsed = numbers.and_then(|(major, rest)| Some((major.parse().ok()?, minor(rest)?)));
    parsed.with_context(|| format!("`{name}` is no version of the C library that is known here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_c_library_compare_by_number() {
        assert_eq!(glibc(b"GLIBC_2.34").unwrap(), (2, 34));
        assert_eq!(glibc(b"GLIBC_2.2.5").unwrap(), (2, 2));
        assert!(glibc(b"GLIBC_2.9").unwrap() < glibc(b"GLIBC_2.34").unwrap());
        assert!(glibc(b"GLIBC_ABI_DT_RELR").unwrap() > glibc(b"GLIBC_2.34").unwrap());
        for unknown in ["GLIBC_PRIVATE", "GCC_3.0", "GLIBC_2.x", ""] {
            assert!(glibc(unknown.as_bytes()).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_library_of_no_known_package_is_an_error_that_names_it() {
        assert_eq!(package_of(b"libm.so.6").unwrap(), "libc6");
        let error = package_of(b"libssl.so.3").unwrap_err().to_string();
        assert!(error.contains("libssl.so.3"), "{error}");
    }

    /// This test is a program itself, of this machine, and linked with the C library.
    #[test]
    fn a_dynamic_program_depends_on_the_c_library_of_the_version_that_it_uses() {
        let linkage = Linkage::of(&std::env::current_exe().unwrap()).unwrap();
        assert!(linkage.architecture.is_host(), "{linkage:?}");
        let libc = linkage.depends.iter().find(|package| package.starts_with("libc6 (>= 2."));
        assert!(libc.is_some(), "{linkage:?}");
        assert!(Linkage::read(b"#!/bin/sh\n").is_err());
    }
}
