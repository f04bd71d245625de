use proptest::prelude::*;

use crate::config::tests::{EXAMPLE, parse};

/// What the library says, or the compiler's names of types: none of it means anything to who writes a configuration.
const WORDS_OF_LIBRARIES: [&str; 32] = [
    "DuplicateKeyPolicy",
    "Option<",
    "from_str",
    "Options",
    "serde",
    "saphyr",
    "granit",
    "deserialize",
    "struct ",
    "enum ",
    "variant",
    "invalid type",
    "invalid value",
    "expected",
    "scalar",
    "mapping start",
    "sequence start",
    "unit",
    "budget",
    "BudgetBreach",
    "u16",
    "u32",
    "usize",
    "i64",
    "nonzero",
    "NonZero",
    "visitor",
    "raw::",
    "anchor id",
    "replay",
    "time unit needed",
    "socket address syntax",
];

pub(in crate::config) fn assert_own_words(error: &str, what: &str) {
    // What is in backquotes is the writer's own.
    let said: String = error.split('`').step_by(2).collect();
    for word in WORDS_OF_LIBRARIES {
        let is_whole = |at: usize| {
            let inside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase());
            word.len() > 5 || !inside(said[at + word.len()..].chars().next())
        };
        let found = said.match_indices(word).any(|(at, _)| is_whole(at));
        assert!(!found, "{word:?} in {error:?}, of {what:?}");
    }
}

#[test]
fn no_word_of_a_library_is_in_a_message_about_the_form() {
    for (from, to, expected) in [
        ("node: node-a", "node: node-a\nnode: node-b", "the key `node` is there twice"),
        ("node: node-a", "node:", "a value is missing"),
        ("node: node-a", "node: [a]", "a single value is wanted here"),
        ("trustDomain: example.org\n", "", "the key `trustDomain` is missing"),
        ("node: node-a", "node: !x node-a", ""),
        ("node: node-a", "node: *nobody", "an alias"),
        ("node: node-a", "node: \"node-a", "the indentation does not fit here"),
        ("node: node-a", "node: {", ""),
        ("node: node-a", "\tnode: node-a", "a tab"),
        ("node: node-a", "node: a: b", "look at the indentation"),
        ("node: node-a", "node: node-a\n---\nnode: node-b", ""),
        ("node: node-a", "node: node-a\n<<: 7", ""),
        ("node: node-a", "node: node-a\n? [a]\n: b", ""),
        ("workloads:", "workloads: 7\nx:", "a list is wanted here"),
        (
            "select: { cgroup: \"demo.slice/web*\" }",
            "select: web",
            "a mapping, keys with values, is wanted here",
        ),
        ("ports: [8080]", "ports: 8080", "a list is wanted here"),
        ("ports: [8080]", "ports: [80800]", "a number up to 65535 is wanted here"),
        ("ports: [8080]", "ports: [http]", "a number up to 65535 is wanted here"),
        ("ports: [8080]", "ports: [-1]", "a number up to 65535 is wanted here"),
        (
            "mode: strict",
            "mode: strickt",
            "`strickt` is none of `strict`, `permissive`, `disabled`",
        ),
        ("mode: strict", "mode: {}", ""),
        ("mode: strict", "mode:", ""),
        ("trustDomain: example.org", "trustDomain: []", ""),
        ("trustDomain: example.org", "trustDomain: Example.org", "Example.org"),
        ("capture: { cgroup: auto }", "limits: { flows: 0 }", "a number from 1 on is wanted here"),
        ("capture: { cgroup: auto }", "limits: { flows: many }", "a number"),
        ("capture: { cgroup: auto }", "limits: { flows: 99999999999999999999999 }", ""),
        ("capture: { cgroup: auto }", "limits: { buffers: many }", "not a number of bytes"),
        ("capture: { cgroup: auto }", "timeouts: { connect: 10 }", "not a length of time"),
        ("capture: { cgroup: auto }", "timeouts: { connect: 0s }", "must be longer than zero"),
        ("capture: { cgroup: auto }", "timeouts: { connect: soon }", "not a length of time"),
        (
            "capture: { cgroup: auto }",
            "dns: { servers: [10.0.0.53] }",
            "the address and port of a resolver",
        ),
        (
            "capture: { cgroup: auto }",
            "sessions: { reuse: { perWorkload: -1 } }",
            "a number is wanted here",
        ),
        ("capture: { cgroup: auto }", "tlsContexts: { a: b }", "a list is wanted here"),
        ("spiffeId: spiffe", "spiffeId: [spiffe]\n    x: spiffe", ""),
        ("spiffeIds: [\"spiffe://example.org/ns/demo/sa/web\"]", "pins: [{ certificate: [] }]", ""),
        ("spiffeIds: [\"spiffe://example.org/ns/demo/sa/web\"]", "pins: [7]", ""),
    ] {
        assert!(EXAMPLE.contains(from), "{from}");
        let parsed = parse(&EXAMPLE.replace(from, to));
        assert!(parsed.is_err() || expected.is_empty(), "{to}");
        if let Err(error) = parsed {
            assert!(error.contains(expected), "{to}: {error}");
            assert_own_words(&error, to);
        }
    }
    let error = parse(&format!("{EXAMPLE}---\nnode: b\n")).unwrap_err();
    assert!(error.contains("a configuration is one document"), "{error}");
    for text in [
        "",
        "---",
        "- a",
        "7",
        "null",
        "{",
        "\u{feff}",
        "%YAML 3.0\n---\na: b",
        "a: &a [*a]",
        "a: b\n---\nc: d",
    ] {
        assert_own_words(&parse(text).unwrap_err(), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// Something is put in place of a part of a good configuration, or a part is taken out.
    #[test]
    fn whatever_is_wrong_with_a_configuration_is_said_in_our_words(
        at: prop::sample::Index,
        length in 0..12_usize,
        put in prop_oneof![
            Just(""), Just("7"), Just("[]"), Just("{}"), Just("null"), Just("~"), Just(": "), Just("- "), Just("\""), Just("'"),
            Just("\t"), Just("\n"), Just("&a "), Just("*a"), Just("!!binary "), Just("!t "), Just("? "), Just("| "), Just("> "),
            Just("#"), Just("]"), Just("}"), Just(","), Just("<<: "), Just("1e400"), Just("0x"), Just("true"), Just("\n---\n"),
        ],
    ) {
        let start = at.index(EXAMPLE.len());
        let end = (start + length).min(EXAMPLE.len());
        let text = format!("{}{put}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
        if let Err(error) = parse(&text) {
            assert_own_words(&error, &text);
        }
    }
}
