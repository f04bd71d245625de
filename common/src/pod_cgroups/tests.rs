use super::*;
use proptest::prelude::*;

const UUID: &str = "0a1b2c3d-4e5f-4789-8abc-def012345678";
const HASH: &str = "0a1b2c3d4e5f47898abcdef012345678";

fn paths(root: &str) -> PodPaths {
    PodPaths::below(root).unwrap()
}

fn place(root: &str, path: &str) -> Place {
    paths(root).place(path.as_bytes())
}

/// Every layout, with the uid as `{}`.
const LAYOUTS: [(&str, [&str; 3]); 7] = [
    ("/kubepods", ["/kubepods/pod{}", "/kubepods/burstable/pod{}", "/kubepods/besteffort/pod{}"]),
    (
        "/kubepods.slice",
        [
            "/kubepods.slice/kubepods-pod{}.slice",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice",
        ],
    ),
    (
        "/node-a/kubepods",
        [
            "/node-a/kubepods/pod{}",
            "/node-a/kubepods/burstable/pod{}",
            "/node-a/kubepods/besteffort/pod{}",
        ],
    ),
    (
        "/kubelet.slice/kubelet-kubepods.slice",
        [
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{}.slice",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{}.slice",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{}.slice",
        ],
    ),
    // kind, with either driver: the node is a container.
    (
        "/docker/3f1e0c/kubelet/kubepods",
        [
            "/docker/3f1e0c/kubelet/kubepods/pod{}",
            "/docker/3f1e0c/kubelet/kubepods/burstable/pod{}",
            "/docker/3f1e0c/kubelet/kubepods/besteffort/pod{}",
        ],
    ),
    (
        "/docker-3f1e0c.scope/kubepods.slice",
        [
            "/docker-3f1e0c.scope/kubepods.slice/kubepods-pod{}.slice",
            "/docker-3f1e0c.scope/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
            "/docker-3f1e0c.scope/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice",
        ],
    ),
    // Of one level.
    ("/pod", ["/pod/pod{}", "/pod/burstable/pod{}", "/pod/besteffort/pod{}"]),
];

/// The uids as a driver writes them into the name.
fn spellings(root: &str) -> [(String, bool); 2] {
    let uuid = if root.ends_with(".slice") { UUID.replace('-', "_") } else { UUID.to_owned() };
    [(uuid, false), (HASH.to_owned(), true)]
}

#[test]
fn pods_of_every_layout_are_known() {
    let uid = UUID.parse().unwrap();
    for (root, patterns) in LAYOUTS {
        for pattern in patterns {
            for (spelt, is_hash) in spellings(root) {
                let path = pattern.replace("{}", &spelt);
                assert_eq!(place(root, &path), Place::Pod { uid, is_hash }, "{path}");
            }
            let (parent, _) = pattern.rsplit_once('/').unwrap();
            assert_eq!(place(root, parent), Place::AbovePods, "{parent}");
        }
        let parents: Vec<_> = patterns.map(|pattern| pattern.rsplit_once('/').unwrap().0).into();
        let found: Vec<_> = paths(root).parents().map(|path| path.to_vec()).collect();
        assert_eq!(found, parents.iter().map(|path| path.as_bytes().to_vec()).collect::<Vec<_>>());
    }
}

#[test]
fn neither_deeper_nor_higher_nor_elsewhere_is_a_pod() {
    for (root, patterns) in LAYOUTS {
        for pattern in patterns {
            let path = pattern.replace("{}", &spellings(root)[0].0);
            let (parent, name) = path.rsplit_once('/').unwrap();
            for other in [
                format!("{path}/{name}"),
                format!("{path}/0123456789abcdef/{name}"),
                format!("{path}/"),
                format!("{path}x"),
                path[..path.len() - 1].to_owned(),
                format!("/x{path}"),
                format!("{parent}/x/{name}"),
                format!("{parent}/{name}/{}", &path[1..]),
                format!("{parent}/x{name}"),
                name.to_owned(),
                format!("/{name}"),
                String::new(),
                "/".to_owned(),
            ] {
                let found = place(root, &other);
                assert!(!matches!(found, Place::Pod { .. }), "{other}: {found:?}");
            }
        }
    }
}

#[test]
fn each_driver_has_its_own_spelling() {
    for (root, path) in [
        ("/kubepods", "/kubepods/pod0a1b2c3d_4e5f_4789_8abc_def012345678"),
        ("/kubepods", "/kubepods/pod0a1b2c3d4e5f47898abcdef012345678.slice"),
        ("/kubepods", "/kubepods/kubepods-pod0a1b2c3d4e5f47898abcdef012345678.slice"),
        (
            "/kubepods.slice",
            "/kubepods.slice/kubepods-pod0a1b2c3d-4e5f-4789-8abc-def012345678.slice",
        ),
        ("/kubepods.slice", "/kubepods.slice/kubepods-pod0a1b2c3d4e5f47898abcdef012345678"),
        ("/kubepods.slice", "/kubepods.slice/kubepods-pod0a1b2c3d4e5f47898abcdef012345678.scope"),
        ("/kubepods.slice", "/kubepods.slice/pod0a1b2c3d4e5f47898abcdef012345678.slice"),
        (
            "/kubepods.slice",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-pod0a1b2c3d4e5f47898abcdef012345678.slice",
        ),
        ("/kubepods", "/kubepods/podmy-own-uid"),
        ("/kubepods", "/kubepods/guaranteed/pod0a1b2c3d4e5f47898abcdef012345678"),
    ] {
        assert_eq!(place(root, path), Place::Elsewhere, "{path}");
    }
}

#[test]
fn a_root_is_a_path_of_a_cgroup() {
    for root in ["", "kubepods", "/", "//", "/a/", "/a//b", "/a/../b", "/./a", "/a\n/b", "a/b"] {
        assert_eq!(PodPaths::below(root), Err(RootError::Path), "{root:?}");
    }
    for root in ["/.slice", "/a/.slice"] {
        assert_eq!(PodPaths::below(root), Err(RootError::Slice), "{root:?}");
    }
}

#[test]
fn the_longest_root_is_compared_to_its_end() {
    let root = |len: usize| format!("/{}", "a".repeat(len - 1));
    let longest = HEAD_LEN - "/besteffort/pod".len();
    assert_eq!(PodPaths::below(&root(longest + 1)), Err(RootError::TooLong));
    let path = format!("{}/besteffort/pod{UUID}", root(longest));
    let uid = UUID.parse().unwrap();
    assert_eq!(place(&root(longest), &path), Place::Pod { uid, is_hash: false });
    assert_eq!(place(&root(longest), &path.replacen("aa", "ab", 1)), Place::Elsewhere);
}

#[test]
fn without_a_root_nothing_is_a_pod() {
    for path in ["", "/", "/kubepods", &format!("/kubepods/pod{UUID}"), UUID, HASH] {
        assert_eq!(PodPaths::NONE.place(path.as_bytes()), Place::Elsewhere, "{path}");
    }
    assert_eq!(PodPaths::NONE.parents().count(), 0);
}

#[test]
fn a_path_that_has_been_cut_short_is_no_pod() {
    let path = format!("/kubepods/pod{UUID}/{}", "a".repeat(PATH_LEN));
    assert_eq!(place("/kubepods", &path), Place::Elsewhere);
    assert_eq!(place("/kubepods", &path[..PATH_LEN]), Place::Elsewhere);
}

/// The obvious definition, to compare with.
fn reference(root: &str, path: &str) -> Place {
    let name = root.rsplit('/').next().unwrap().strip_suffix(".slice");
    let parents: Vec<(String, String)> = match name {
        None => ["", "/burstable", "/besteffort"]
            .map(|class| (format!("{root}{class}"), "pod".to_owned()))
            .into(),
        Some(name) => vec![
            (root.to_owned(), format!("{name}-pod")),
            (format!("{root}/{name}-burstable.slice"), format!("{name}-burstable-pod")),
            (format!("{root}/{name}-besteffort.slice"), format!("{name}-besteffort-pod")),
        ],
    };
    if parents.iter().any(|(parent, _)| parent == path) {
        return Place::AbovePods;
    }
    let (parent, component) = path.rsplit_once('/').unwrap_or_default();
    let spelt = parents.iter().find(|(other, _)| other == parent).and_then(|(_, prefix)| {
        let spelt = component.strip_prefix(prefix)?;
        match name {
            None => (!spelt.contains('_')).then(|| spelt.to_owned()),
            Some(_) => spelt
                .strip_suffix(".slice")
                .filter(|spelt| !spelt.contains('-'))
                .map(|spelt| spelt.replace('_', "-")),
        }
    });
    match spelt.as_deref().map(str::parse) {
        Some(Ok(uid)) => Place::Pod { uid, is_hash: spelt.is_some_and(|spelt| spelt.len() == 32) },
        _ => Place::Elsewhere,
    }
}

proptest! {
    #[test]
    fn agrees_with_the_obvious_definition(
        root in prop::sample::select(vec!["/kubepods", "/kubepods.slice", "/a/kubepods", "/a.slice/a-b.slice"]),
        parts in prop::collection::vec(prop::sample::select(vec![
            "/", "/kubepods", "/kubepods.slice", "/a", "/a.slice", "/a-b.slice", "/burstable", "/besteffort",
            "/kubepods-burstable.slice", "/a-b-besteffort.slice", "/pod", "/kubepods-pod", "/a-b-besteffort-pod",
            "/kubepods-burstable-pod", UUID, HASH, "0a1b2c3d_4e5f_4789_8abc_def012345678", ".slice", "-", "x",
        ]), 0..7),
    ) {
        let path = parts.concat();
        prop_assert_eq!(place(root, &path), reference(root, &path));
        let below = format!("{root}{path}");
        prop_assert_eq!(place(root, &below), reference(root, &below));
    }

    /// One character more or less, or another one, is another pod or none.
    #[test]
    fn a_change_of_one_character_is_seen(
        layout in 0..LAYOUTS.len(), class in 0_usize..3, spelling in 0_usize..2, at in 0_usize..200, to in "[0-9a-z/_.-]",
    ) {
        let (root, patterns) = LAYOUTS[layout];
        let path = patterns[class].replace("{}", &spellings(root)[spelling].0);
        let at = at % path.len();
        let changed = format!("{}{to}{}", &path[..at], &path[at + 1..]);
        let uid = UUID.parse::<PodUid>().unwrap();
        if changed != path {
            let is_same = matches!(place(root, &changed), Place::Pod { uid: found, .. } if found == uid);
            prop_assert!(!is_same, "{} {}", path, changed);
        }
    }

    /// No bytes take more steps than the kernel takes, or are taken for a pod outside of the root.
    #[test]
    fn any_bytes_come_to_an_end(path in prop::collection::vec(any::<u8>(), 0..600)) {
        for (root, _) in LAYOUTS {
            let found = paths(root).place(&path);
            prop_assert!(found == Place::Elsewhere || path.starts_with(root.as_bytes()));
        }
    }
}

#[test]
fn the_host_is_spared_and_static_pods_are_not_held() {
    let rules = PodRules::new(paths("/kubepods"), 7, true, false);
    assert!(rules.hold(false) && !rules.hold(true));
    assert!(rules.spare(7) && !rules.spare(8) && !rules.spare(0));
    let all = PodRules::new(paths("/kubepods"), 7, true, true);
    assert!(all.hold(false) && !all.hold(true) && !all.spare(7));
    let none = PodRules::new(paths("/kubepods"), 7, false, false);
    assert!(!none.hold(false) && none.spare(7));
    // Where it is not known which namespace is the host's, none is.
    assert!(!PodRules::new(paths("/kubepods"), 0, true, false).spare(0));
    assert!(!PodRules::NONE.spare(0));
    assert_eq!([0, 1, 2, u32::MAX].map(rules_of), [0, 1, 0, 1]);
}
