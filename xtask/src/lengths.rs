//! A file has one subject, and so is not long. Tests may be: they are read one by one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace;

const CRATES: [&str; 5] = ["agent", "bench", "common", "ebpf", "xtask"];

/// Lines of any file, without its tests.
const LONGEST: usize = 400;
/// Lines of the story of a connection, which is to be read at once.
const STORY: (&str, usize) = ("agent/src/pipeline.rs", 200);

#[test]
fn no_file_is_longer_than_400_lines_and_the_story_is_half_that() {
    let mut files = Vec::new();
    for name in CRATES {
        collect(&workspace::root().join(name).join("src"), &mut files);
    }
    let (story, limit) = STORY;
    let long: Vec<_> = files
        .into_iter()
        .filter(|(path, lines)| *lines > LONGEST || path.ends_with(story) && *lines > limit)
        .collect();
    assert!(long.is_empty(), "files that have grown too long: {long:?}");
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, usize)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["tests", "testing"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            files.push((path, code.lines().count()));
        }
    }
}
