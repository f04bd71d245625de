//! Programs of this machine, for an image: with the loader and the shared libraries that they are linked with, each where
//! the program looks for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::files::Files;

/// Adds a program, by its path or its name. Returns where it is in the image.
///
/// # Errors
/// When it, or one of its libraries, cannot be found.
pub fn add(program: &Path, files: &mut Files) -> Result<String> {
    let found = find(program).with_context(|| format!("no program {}", program.display()))?;
    let name = program.file_name().and_then(|name| name.to_str()).context("a program's name")?;
    let at = format!("/usr/bin/{name}");
    files.add_file(&at, &found);
    for library in libraries(&found)? {
        files.add_file(&library, &Path::new(&library).canonicalize().context(library.clone())?);
    }
    Ok(at)
}

fn find(program: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// What ldd(1) says.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output =
        Command::new("ldd").env("LC_ALL", "C").arg(program).output().context("cannot start ldd")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let problem = String::from_utf8_lossy(&output.stderr);
    if problem.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    ensure!(output.status.success(), "ldd {}: {}", program.display(), problem.trim());
    ensure!(!said.contains("not found"), "{} lacks a library:\n{said}", program.display());
    Ok(read(&said))
}

fn read(said: &str) -> Vec<String> {
    let path = |line: &str| {
        let right = line.split_once("=> ").map_or(line, |(_, right)| right);
        right.split_whitespace().next().filter(|path| path.starts_with('/')).map(str::to_owned)
    };
    said.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_and_libraries_are_read() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(read(said), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(read("\tstatically linked\n"), [""; 0]);
    }

    #[test]
    fn a_program_comes_with_its_loader() {
        let mut files = Files::default();
        assert_eq!(add(Path::new("ls"), &mut files).unwrap(), "/usr/bin/ls");
        assert!(files.entries().any(|(path, _)| path.starts_with("lib") && path.contains("/ld-")));
        assert!(add(Path::new("no-such-program"), &mut files).is_err());
    }
}
