//! Which module of a crate names which: read from its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The path of a module within its crate.
pub type Module = Vec<String>;

/// Who imports whom, among neighbours: modules in the same folder, each with everything below it.
pub type Arrows = BTreeSet<(String, String)>;

/// The sources of a crate, without those that only tests have.
pub type Sources = BTreeMap<Module, String>;

/// Reads the modules in a folder. Programs in `bin` are crates of their own.
pub fn collect(folder: &Path, above: &Module, sources: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let mut module = above.clone();
        if !["bin", "lib", "main", "mod"].contains(&name) {
            module.push(name.to_owned());
        }
        if ["tests", "testing"].contains(&name) {
            continue;
        }
        if path.is_dir() && name != "bin" {
            collect(&path, &module, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.insert(module, fs::read_to_string(path).unwrap());
        }
    }
}

/// The arrows between all neighbours.
pub fn arrows(sources: &Sources) -> Arrows {
    let mut arrows = Arrows::new();
    for (from, text) in sources {
        // What only tests import is no part of the crate.
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for path in paths(text) {
            let to = resolve(from, &path, sources);
            let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            if common < from.len().min(to.len()) {
                arrows.insert((from[..=common].join("::"), to[..=common].join("::")));
            }
        }
    }
    arrows
}

/// The module that a path leads to, as far as it is about modules.
fn resolve(from: &Module, path: &[String], sources: &Sources) -> Module {
    let mut to = if path[0] == "crate" { Module::new() } else { from.clone() };
    for name in path {
        match name.as_str() {
            "crate" => {}
            "super" => drop(to.pop()),
            name => {
                to.push(name.to_owned());
                if !sources.contains_key(&to) {
                    to.pop();
                    break;
                }
            }
        }
    }
    to
}

/// Every path in a source that begins with `crate` or `super`, in `use` lines and elsewhere.
fn paths(text: &str) -> Vec<Vec<String>> {
    let code: Vec<&str> =
        text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect();
    let code = code.join("\n");
    let mut paths = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let is_inside = |c: char| c.is_alphanumeric() || ['_', ':', '$'].contains(&c);
            if !code[..at].ends_with(is_inside) {
                tree(&code[at..], &mut Vec::new(), &mut paths);
            }
        }
    }
    paths
}

/// Reads a path, or several with the same beginning. Returns what follows.
fn tree<'t>(text: &'t str, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'t str {
    let length = path.len();
    let mut rest = text.trim_start();
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_owned());
        }
        rest = &rest[end..];
        let Some(next) = rest.strip_prefix("::") else {
            paths.push(path.clone());
            break;
        };
        rest = next;
        if let Some(inner) = next.strip_prefix('{') {
            rest = inner;
            while !rest.trim_start().starts_with('}') && !rest.is_empty() {
                rest = tree(rest, path, paths);
                // `as NAME`, and the comma.
                let end = rest.find([',', '}']).unwrap_or(rest.len());
                rest = rest[end..].strip_prefix(',').unwrap_or(&rest[end..]);
            }
            rest = rest.trim_start().strip_prefix('}').unwrap_or(rest);
            break;
        }
        if !next.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            paths.push(path.clone());
            break;
        }
    }
    path.truncate(length);
    rest
}

#[test]
fn names_are_read_out_of_braces() {
    let text =
        "use crate::{a::{self, b}, c as d};\n// crate::e\nfn f(g: super::super::h::I<u8>) {}";
    let paths: Vec<String> = paths(text).iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["crate::a::self", "crate::a::b", "crate::c", "super::super::h::I"]);
}
