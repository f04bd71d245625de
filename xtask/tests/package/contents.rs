//! What is in the packages, and what they say of themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::made::{MADE, errors, make, success};

/// Everything in the package below /usr that is no document, as dpkg-deb lists it.
const FILES: [&str; 8] = [
    "./usr/bin/sheath",
    "./usr/lib/systemd/system/sheath.service",
    "./usr/share/bash-completion/completions/sheath",
    "./usr/share/fish/vendor_completions.d/sheath.fish",
    "./usr/share/man/man5/sheath.yaml.5.gz",
    "./usr/share/man/man8/sheath-ca-init.8.gz",
    "./usr/share/man/man8/sheath.8.gz",
    "./usr/share/zsh/vendor-completions/_sheath",
];

#[test]
fn the_same_agent_makes_the_same_bytes_whoever_makes_them() {
    let again = make("077");
    for (one, other) in [(&MADE.package, &again.package), (&MADE.tarball, &again.tarball)] {
        assert_eq!(one.file_name(), other.file_name());
        let (one, other) = (fs::read(one).unwrap(), fs::read(other).unwrap());
        assert!(one == other, "{} and {} bytes, which differ", one.len(), other.len());
    }
}

#[test]
fn what_the_package_says_of_itself_is_true() {
    let field = |name: &str| {
        success(Command::new("dpkg-deb").arg("--field").arg(&MADE.package).arg(name))
            .trim()
            .to_owned()
    };
    assert_eq!(field("Version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(
        field("Architecture"),
        success(Command::new("dpkg").arg("--print-architecture")).trim()
    );
    // The agent of the tests is linked with these.
    let depends = field("Depends");
    assert!(depends.contains("libc6 (>= 2.") && depends.contains("libgcc-s1"), "{depends}");
    let dir = unpacked();
    let usage = success(Command::new("du").args(["-s", "--apparent-size", "-k"]).arg(dir.path()));
    let found: u64 = usage.split_whitespace().next().unwrap().parse().unwrap();
    let said: u64 = field("Installed-Size").parse().unwrap();
    assert!(said.abs_diff(found) < 300, "{said} KiB, and it takes {found}");
    let version = success(Command::new(dir.path().join("usr/bin/sheath")).arg("--version"));
    assert_eq!(version.trim(), format!("sheath {}", field("Version")));
}

#[test]
fn files_are_where_debian_has_them_and_root_s() {
    let mut list = Command::new("dpkg-deb");
    let listed = success(list.arg("--contents").arg(&MADE.package).env("TZ", "UTC"));
    let mut names = BTreeSet::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (mode, owner, date, name) = (words[0], words[1], words[3], words[5]);
        assert_eq!((owner, date), ("root/root", "2001-09-09"), "{line}");
        let wanted = match name {
            "./etc/sheath/" => "drwx------",
            "./usr/bin/sheath" => "-rwxr-xr-x",
            _ if name.ends_with('/') => "drwxr-xr-x",
            _ => "-rw-r--r--",
        };
        assert_eq!(mode, wanted, "{line}");
        names.insert(name.to_owned());
    }
    for file in FILES {
        assert!(names.contains(file), "{file} is missing: {names:#?}");
    }
    for file in ["README.md", "copyright", "docs/identity.md", "examples/sheath.yaml"] {
        assert!(names.contains(&format!("./usr/share/doc/sheath/{file}")), "{file} is missing");
    }
    let conffiles =
        success(Command::new("dpkg-deb").args(["--info"]).arg(&MADE.package).arg("conffiles"));
    let below_etc = names.iter().filter(|name| name.starts_with("./etc/") && !name.ends_with('/'));
    let below_etc: Vec<&str> = below_etc.map(|name| &name[1..]).collect();
    assert_eq!(conffiles.lines().collect::<Vec<_>>(), below_etc);
}

#[test]
fn the_unit_starts_the_agent_where_it_is() {
    let dir = unpacked();
    let unit =
        fs::read_to_string(dir.path().join("usr/lib/systemd/system/sheath.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/sheath run "), "{unit}");
    assert!(!unit.contains("/usr/local"), "{unit}");
    let dir = tempfile::tempdir().unwrap();
    success(
        Command::new("tar")
            .arg("--extract")
            .arg("--file")
            .arg(&MADE.tarball)
            .arg("--directory")
            .arg(dir.path())
            .arg("--strip-components=1"),
    );
    let unit = fs::read_to_string(dir.path().join("lib/systemd/system/sheath.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/local/bin/sheath run "), "{unit}");
    for file in
        ["bin/sheath", "share/man/man8/sheath.8.gz", "share/doc/sheath/examples/sheath.yaml"]
    {
        assert!(dir.path().join(file).exists(), "{file}");
    }
}

/// groff(1) warns of whatever it does not understand.
#[test]
fn man_pages_are_without_mistakes() {
    let dir = unpacked();
    let man = dir.path().join("usr/share/man");
    let mut count = 0;
    for section in ["man5", "man8"] {
        for page in fs::read_dir(man.join(section)).unwrap() {
            let page = page.unwrap().path();
            let text = success(Command::new("gzip").args(["--decompress", "--stdout"]).arg(&page));
            let plain = page.with_extension("");
            fs::write(&plain, text).unwrap();
            let mut groff = Command::new("groff");
            groff.args(["-man", "-Kutf8", "-Tutf8", "-wall", "-Wbreak", "-z"]).arg(&plain);
            let output = groff.output().expect("running groff");
            assert!(output.status.success() && output.stderr.is_empty(), "{}", errors(&output));
            count += 1;
        }
    }
    assert!(count > 15, "{count} pages");
}

#[test]
fn bash_completes_commands_and_options() {
    let dir = unpacked();
    let completions = dir.path().join("usr/share/bash-completion/completions/sheath");
    let complete = |words: &str, last: &str| {
        let script = format!(
            r#"source "$1"; COMP_WORDS=({words} {last}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _sheath sheath "{last}" ""; echo "${{COMPREPLY[@]}}""#
        );
        success(Command::new("bash").args(["-c", &script, "bash"]).arg(&completions))
    };
    assert_eq!(complete("sheath", "repl").trim(), "replace");
    assert!(complete("sheath run", "--ta").contains("--take-over"));
}

fn unpacked() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    success(Command::new("dpkg-deb").arg("--extract").arg(&MADE.package).arg(dir.path()));
    assert!(Path::new(dir.path()).join("usr").exists());
    dir
}
