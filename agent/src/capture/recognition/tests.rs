use sheath_common::workload::{InboundMode, OutboundMode};

use super::*;
use crate::capture::cgroup_mount;

/// Cgroups of a test's own.
struct Tree {
    mount: PathBuf,
    top: String,
}

impl Tree {
    fn new(name: &str, cgroups: &[&str]) -> Self {
        let mount = cgroup_mount().unwrap();
        let top = format!("/sheath-recognition-{name}-{}", std::process::id());
        for cgroup in cgroups {
            fs::create_dir_all(join(&mount, format!("{top}{cgroup}"))).unwrap();
        }
        Self { mount, top }
    }

    fn id(&self, cgroup: &str) -> u64 {
        fs::metadata(join(&self.mount, format!("{}{cgroup}", self.top))).unwrap().ino()
    }

    fn find(&self, selectors: &[CgroupSelector]) -> Vec<Found> {
        Recognition::new(&workloads(selectors)).find(&self.mount, &[]).unwrap()
    }

    fn pattern(&self, pattern: &str) -> CgroupSelector {
        CgroupSelector::Pattern(format!("{}{pattern}", self.top))
    }

    /// Paths below the top of the tree.
    fn paths(&self, found: &[WorkloadCgroup]) -> Vec<String> {
        let below = |cgroup: &WorkloadCgroup| {
            let path = cgroup.path.strip_prefix(&self.top).unwrap();
            format!("/{}", path.display())
        };
        let mut paths: Vec<_> = found.iter().map(below).collect();
        paths.sort_unstable();
        paths
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fn remove(directory: &Path) {
            for child in crate::capture::cgroups::children(directory).unwrap_or_default() {
                remove(&directory.join(child));
            }
            let _ = fs::remove_dir(directory);
        }
        remove(&join(&self.mount, &self.top));
    }
}

fn workloads(selectors: &[CgroupSelector]) -> Vec<desired::Workload> {
    let workload = |cgroup: &CgroupSelector| desired::Workload {
        cgroup: cgroup.clone(),
        ..desired::Workload::testing("web")
    };
    selectors.iter().map(workload).collect()
}

#[test]
fn the_first_workload_that_selects_a_cgroup_has_it() {
    let tree = Tree::new("first", &["/web", "/web-1/inner", "/db", "/other"]);
    let [all, literal, web, inner] = ["/*", "/web", "/web*", "/web*/*"].map(|p| tree.pattern(p));
    for (selectors, expected) in [
        (
            [&all, &literal, &web, &inner],
            [["/db", "/other", "/web", "/web-1"].as_slice(), &[], &[], &["/web-1/inner"]],
        ),
        (
            [&inner, &web, &literal, &all],
            [&["/web-1/inner"], &["/web", "/web-1"], &[], &["/db", "/other"]],
        ),
        (
            [&literal, &all, &inner, &web],
            [&["/web"], &["/db", "/other", "/web-1"], &["/web-1/inner"], &[]],
        ),
    ] {
        let found = tree.find(&selectors.map(Clone::clone));
        let selected: Vec<_> = found.iter().map(|found| tree.paths(&found.selected)).collect();
        assert_eq!(selected, expected, "{selectors:?}");
        // Whoever comes too late is told by whom.
        for (index, selector) in selectors.iter().enumerate() {
            let alone = tree.find(&[(*selector).clone()]).pop().unwrap();
            assert_eq!(
                alone.selected.len(),
                found[index].selected.len() + found[index].taken.len()
            );
            assert!(
                found[index].taken.iter().all(|(cgroup, by)| found[*by].selected.contains(cgroup))
            );
        }
    }
}

#[test]
fn a_cgroup_is_found_by_its_id_wherever_it_is() {
    let tree = Tree::new("id", &["/a/b/c", "/web"]);
    let [deep, web] = ["/a/b/c", "/web"].map(|path| CgroupSelector::Id(tree.id(path)));
    let found = tree.find(&[deep.clone(), tree.pattern("/web"), web, tree.pattern("/a/*/c")]);
    let selected: Vec<_> = found.iter().map(|found| tree.paths(&found.selected)).collect();
    assert_eq!(selected, [["/a/b/c"].as_slice(), &["/web"], &[], &[]]);
    assert_eq!(found[2].taken[0].1, 1);
    assert_eq!(found[3].taken[0].1, 0);
    // No id is used again.
    fs::remove_dir(join(&tree.mount, format!("{}/a/b/c", tree.top))).unwrap();
    fs::create_dir(join(&tree.mount, format!("{}/a/b/c", tree.top))).unwrap();
    assert_eq!(tree.find(&[deep]), [Found::default()]);
}

#[test]
fn a_path_that_is_too_long_is_told_of_where_a_pattern_ends() {
    let long = "x".repeat(250);
    let tree = Tree::new("long", &[&format!("/{long}/{long}/{long}")]);
    let found = tree.find(&[tree.pattern("/*/*"), tree.pattern("/*/*/*"), tree.pattern("/*/y*")]);
    let told: Vec<_> = found.iter().map(|found| tree.paths(&found.too_long).len()).collect();
    assert_eq!(told, [1, 1, 0]);
    assert!(found.iter().all(|found| found.selected.is_empty()));
}

#[test]
fn workloads_that_others_may_lie_in_are_known() {
    let patterns = ["/a/*", "/a/b/c*", "/d", "/d/e/f/g", "/h/*", "/i"];
    let patterns = patterns.map(|pattern| CgroupSelector::Pattern(pattern.to_owned()));
    let recognition = Recognition::new(&workloads(&patterns));
    assert_eq!(recognition.above_others(), [0, 2].into());
    let bases: Vec<_> = recognition.bases().iter().map(String::as_str).collect();
    assert_eq!(bases, ["", "/a", "/a/b", "/d/e/f", "/h"]);
}

#[test]
fn what_is_recognised_stands_for_its_workload_or_lies_below_none() {
    let patterns = ["/a/*", "/a", "/b/c"].map(|p| CgroupSelector::Pattern(p.to_owned()));
    let mut recognition = Recognition::new(&workloads(&patterns));
    let entry = |index: usize| {
        Workload::new(index as u32 + 1, OutboundMode::Require, InboundMode::Strict, false)
    };
    recognition.stand_for(entry);
    let stands_for = |path: &str| {
        let first = recognition.selectors().about(path.as_bytes()).into_iter().next();
        first.map(|(number, _)| recognition.selectors().entries(1).0[number].1.workload)
    };
    for (path, expected) in [
        ("/a/x", Some(entry(0))),
        // It is a workload itself, which says more than that workloads lie below.
        ("/a", Some(entry(1))),
        ("/b/c", Some(entry(2))),
        ("/b", Some(Workload::BASE)),
        ("/c", None),
    ] {
        assert_eq!(stands_for(path), expected, "{path}");
    }
}

#[test]
fn a_pod_is_its_workloads_unless_a_pattern_has_its_cgroup() {
    let [first, second] = [1, 2].map(|number| PodUid::from_bytes([number; 16]));
    let paths = [format!("/kubepods/pod{first}"), format!("/kubepods/burstable/pod{second}")];
    let tree = Tree::new("pods", &[&paths[0], &format!("{}/main", paths[1])]);
    let root = PodRoot::new(&format!("{}/kubepods", tree.top)).unwrap();
    let pods = pod_cgroups::find(&tree.mount, &root).unwrap();
    let selectors = [
        CgroupSelector::Pod(second),
        CgroupSelector::Pod(first),
        tree.pattern("/kubepods/burstable/pod*"),
        CgroupSelector::Pod(first),
        CgroupSelector::Pod(PodUid::from_bytes([3; 16])),
    ];
    let recognition = Recognition::new(&workloads(&selectors));
    assert_eq!(recognition.pods()[&first], 1, "the first of two");
    let found = recognition.find(&tree.mount, &pods).unwrap();
    let selected: Vec<_> = found.iter().map(|found| tree.paths(&found.selected)).collect();
    assert_eq!(selected, [vec![], vec![paths[0].clone()], vec![paths[1].clone()], vec![], vec![]]);
    let taken: Vec<_> =
        found.iter().map(|found| found.taken.first().map(|taken| taken.1)).collect();
    assert_eq!(taken, [Some(2), None, None, Some(1), None]);
    // As `sheath check` looks, for one after the other.
    let one = &workloads(&selectors)[1];
    assert_eq!(tree.paths(&find(&tree.mount, one, Some(&root)).unwrap().selected), [&paths[0][..]]);
    assert_eq!(find(&tree.mount, one, None).unwrap(), Found::default());
}
