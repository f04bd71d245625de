use super::*;
use proptest::prelude::*;

fn glob(pattern: &str) -> Glob {
    Glob::new(pattern.as_bytes()).unwrap()
}

fn does_match(pattern: &str, path: &str) -> bool {
    glob(pattern).matches(path.as_bytes())
}

/// The obvious recursive definition, to compare with.
fn reference(pattern: &[u8], path: &[u8]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            reference(rest, path)
                || matches!(path.split_first(), Some((c, tail)) if *c != b'/' && reference(pattern, tail))
        }
        (Some((b'?', rest)), Some((c, tail))) if *c != b'/' => reference(rest, tail),
        (Some((p, rest)), Some((c, tail))) => p == c && reference(rest, tail),
        _ => false,
    }
}

#[test]
fn plain_paths_match_themselves_only() {
    assert!(does_match("/system.slice/nginx.service", "/system.slice/nginx.service"));
    assert!(!does_match("/system.slice/nginx.service", "/system.slice/nginx.service/sub"));
    assert!(!does_match("/system.slice/nginx.service", "/system.slice"));
}

#[test]
fn stars_stay_within_a_component() {
    assert!(does_match("/demo.slice/web*", "/demo.slice/web"));
    assert!(does_match("/demo.slice/web*", "/demo.slice/web-1.scope"));
    assert!(!does_match("/demo.slice/web*", "/demo.slice/web/inner"));
    assert!(does_match("/kube*/pod?", "/kubepods/pod7"));
    assert!(!does_match("/kube*/pod?", "/kubepods/pod77"));
    assert!(!does_match("/a?b", "/a/b"));
}

#[test]
fn the_longest_path_and_pattern_are_handled() {
    let pattern = format!("/{}*", "a".repeat(PATTERN_LEN - 2));
    let path = format!("/{}", "a".repeat(PATH_LEN - 3));
    assert!(does_match(&pattern, &path));
    assert_eq!(path.len(), MAX_PATH);
    assert!(!does_match(&pattern, &format!("{path}a")));
    assert!(Glob::new(&[b'a'; PATTERN_LEN + 1]).is_none());
}

fn selection(pattern: &str, path: &str) -> Selection {
    glob(pattern).select(path.as_bytes())
}

#[test]
fn a_path_that_is_too_long_to_tell_is_not_taken_for_another() {
    let component = "a".repeat(255);
    let deep = format!("/s/{component}/{component}");
    assert_eq!(deep.len(), MAX_PATH + 4);
    for pattern in ["/s/*/*", "/s/*/a*z", "/s/a*/a?*"] {
        assert_eq!(selection(pattern, &deep), Selection::TooLong, "{pattern}");
        // Nor is what is below it.
        assert_eq!(selection(pattern, &format!("{deep}/b")), Selection::TooLong, "{pattern}");
    }
    for pattern in ["/s/*", "/s/b*/*", "/t/*/*", "/s/*/b*", "/s/a"] {
        assert_eq!(selection(pattern, &deep), Selection::Other, "{pattern}");
    }
}

#[test]
fn the_base_of_a_pattern_is_above_everything_it_matches() {
    for (pattern, expected) in [
        ("/demo.slice/web*", "/demo.slice"),
        ("/demo.slice/web", "/demo.slice"),
        ("/a/b?/c", "/a"),
        ("/a/*/c", "/a"),
        ("/*", ""),
        ("/web", ""),
    ] {
        assert_eq!(base(pattern), expected, "{pattern}");
    }
}

proptest! {
    /// Whoever sees only the beginning of a path never says that it does not match when it does.
    #[test]
    fn a_path_that_matches_is_never_dismissed_for_its_beginning(
        parts in prop::collection::vec((0_u8..5, "[ab]{0,3}"), 0..10), cut in 0_usize..30,
    ) {
        let (mut pattern, mut path) = ("/".to_owned(), "/".to_owned());
        for (kind, text) in parts {
            let (spelt, found) = match kind {
                0 => ("*".to_owned(), text),
                1 => ("?".to_owned(), "b".to_owned()),
                2 => ("/".to_owned(), "/".to_owned()),
                _ => (text.clone(), text),
            };
            pattern += &spelt;
            path += &found;
        }
        prop_assert!(does_match(&pattern, &path));
        let pattern = glob(&pattern);
        let beginning = &path.as_bytes()[..cut.min(path.len())];
        let mut buffer = [0; PATH_LEN];
        buffer[..beginning.len()].copy_from_slice(beginning);
        let mut matcher = Matcher::default();
        let last = (0..=MAX_STEPS)
            .map(|_| matcher.step(&pattern, &buffer, beginning.len() as u32, true))
            .find(|step| *step != Step::Continue);
        prop_assert_eq!(last, Some(Step::Match));
    }

    #[test]
    fn agrees_with_the_recursive_definition(pattern in "/[ab*?/]{0,12}", path in "/[ab/]{0,14}") {
        prop_assert_eq!(does_match(&pattern, &path), reference(pattern.as_bytes(), path.as_bytes()));
    }

    #[test]
    fn never_needs_more_than_the_step_limit(pattern in "/[a*]{100,127}", path in "/[ab]{200,510}") {
        let pattern = glob(&pattern);
        let mut buffer = [0; PATH_LEN];
        buffer[..path.len()].copy_from_slice(path.as_bytes());
        let mut matcher = Matcher::default();
        let ended = (0..=MAX_STEPS).any(|_| {
            matcher.step(&pattern, &buffer, path.len() as u32, false) != Step::Continue
        });
        prop_assert!(ended);
    }
}

#[test]
fn a_path_that_ends_in_another_way_is_told_at_once() {
    for (pattern, path, may) in [
        ("/a/*", "/a/anything", true),
        ("/a/*.slice", "/a/b.slice", true),
        ("/a/*.slice", "/a/b.scope", false),
        ("/a/*c", "/c", true),
        ("/a/*bc", "c", false),
        ("/literal/path", "/literal/path", true),
        ("/literal/path", "/literal/math", false),
        // Beyond the last eight characters this tells nothing.
        ("/a/*0123456789", "/a/xx23456789", true),
        ("/a/*0123456789", "/a/xx23456780", false),
    ] {
        let mut buffer = [b'x'; PATH_LEN];
        buffer[..path.len()].copy_from_slice(path.as_bytes());
        let last = last_characters(&buffer, path.len() as u32);
        assert_eq!(glob(pattern).ending().may_be_of(last), may, "{pattern} {path}");
    }
}
