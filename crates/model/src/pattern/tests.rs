use proptest::prelude::*;

use super::*;

fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

#[test]
fn pattern_matches_exactly_its_paths() {
    for (text, matching, others) in [
        ("", &[""][..], &["a"][..]),
        ("a", &["a"], &["", "a/b", "ab", "A"]),
        ("a/**", &["a", "a/b", "a/b/c"], &["", "b", "ab", "b/a"]),
        ("**", &["", "a", "a/b"], &[]),
        ("*", &["a", "b"], &["", "a/b"]),
        ("a/*/c", &["a/b/c", "a/c/c"], &["a/c", "a/b/b/c", "a/b/c/d"]),
        ("a/*/**", &["a/b", "a/b/c"], &["a", "b/c"]),
        ("**/c", &["c", "a/c", "a/b/c"], &["", "a", "a/c/b"]),
        ("a/**/c", &["a/c", "a/b/c", "a/c/c"], &["a", "c", "a/b"]),
        ("*.hang", &[".hang", "cam.hang"], &["hang", "cam.hang/x", "a/cam.hang"]),
        ("cam*", &["cam", "camera"], &["ca", "cam/a"]),
        ("a*a", &["aa", "aba"], &["a"]),
        ("é*", &["é", "éa"], &["e\u{301}"]),
    ] {
        for path_text in matching {
            assert!(pattern(text).matches(&path(path_text)), "{text} matches {path_text}");
        }
        for path_text in others {
            assert!(!pattern(text).matches(&path(path_text)), "{text} does not match {path_text}");
        }
    }
}

#[test]
fn invalid_pattern_is_refused_with_its_reason() {
    for (text, error) in [
        ("/a", PatternError::EmptySegment),
        ("a/", PatternError::EmptySegment),
        ("a//b", PatternError::EmptySegment),
        ("/", PatternError::EmptySegment),
        ("***", PatternError::Stars),
        ("a*b*c", PatternError::Stars),
        ("a**", PatternError::Stars),
        ("**/a/**", PatternError::Runs),
    ] {
        assert_eq!(Pattern::parse(text), Err(error), "{text:?}");
    }
    let deep = vec!["*"; limits::PATH_SEGMENTS].join("/");
    assert!(Pattern::parse(&format!("{deep}/**")).is_ok());
    assert_eq!(Pattern::parse(&format!("{deep}/*")), Err(PathError::TooManySegments.into()));
    let long = "x".repeat(limits::PATH_BYTES + 1);
    assert_eq!(Pattern::parse(&long), Err(PathError::TooLong.into()));
}

#[test]
fn equal_sets_have_one_canonical_pattern() {
    for (text, canonical) in [("a/*/**", "a/**/*"), ("*/*/**/b", "**/*/*/b"), ("**", "**"), ("", "")] {
        assert_eq!(pattern(text).to_string(), canonical);
        assert_eq!(pattern(text), pattern(canonical));
    }
    assert_eq!(pattern("a/b/**"), Pattern::subtree(path("a/b")));
    assert_eq!(pattern("a/b"), Pattern::exact(path("a/b")));
    assert_eq!(pattern("a/*/b").head(), &path("a"));
    assert_eq!(pattern("a/**").as_subtree(), Some(&path("a")));
    assert_eq!(pattern("a/*").as_subtree(), None);
}

#[test]
fn a_pattern_covers_what_lies_in_it() {
    for (outer, inner, expected) in [
        ("**", "a/*/b", true),
        ("", "**", false),
        ("a/**", "a", true),
        ("a/**", "a/*/c", true),
        ("a/**", "**", false),
        ("a/**", "*/a", false),
        ("a", "*", false),
        ("*", "a", true),
        ("*", "a*", true),
        ("a*", "*", false),
        ("a*", "ab*c", true),
        ("ab*", "a*b", false),
        ("**/a", "b/**/a", true),
        ("**/a", "a/**", false),
        ("*/**", "**", false),
        ("*/**", "a/**", true),
        ("*/*/**", "a/**", false),
        ("live/**", "lively/**", false),
    ] {
        assert_eq!(pattern(outer).covers(&pattern(inner)), expected, "{outer} covers {inner}");
    }
}

#[test]
fn narrowing_yields_every_continuation_below_the_root() {
    for (text, root, expected) in [
        ("a/**", "a/b", &["a/b/**"][..]),
        ("a/**", "", &["a/**"]),
        ("a/**", "b", &[]),
        ("a", "a", &["a"]),
        ("a", "a/b", &[]),
        ("a/*/c", "a/b", &["a/b/c"]),
        ("a/*/c", "a/b/c", &["a/b/c"]),
        ("a/*/c", "a/b/d", &[]),
        ("*/chat", "room", &["room/chat"]),
        ("**/c", "a", &["a/**/c"]),
        ("**/c", "a/c", &["a/c/**/c", "a/c"]),
        ("**/c/d", "c", &["c/**/c/d", "c/d"]),
        ("*.hang", "cam.hang", &["cam.hang"]),
        ("*.hang", "cam", &[]),
    ] {
        let got: Vec<String> = pattern(text).narrow(&path(root)).iter().map(ToString::to_string).collect();
        assert_eq!(got, expected, "{text} below {root}");
    }
}

fn some_path() -> impl Strategy<Value = Path> {
    prop::collection::vec("[ab]{1,2}", 0..5).prop_map(|parts| path(&parts.join("/")))
}

fn some_pattern() -> impl Strategy<Value = Pattern> {
    let segment = prop_oneof![3 => "[ab]{1,2}", 1 => Just("*".to_owned()), 1 => "[ab]?\\*[ab]"];
    let segments = prop::collection::vec(segment, 0..4);
    (segments, prop::option::of(0..5_usize)).prop_map(|(mut segments, run)| {
        if let Some(at) = run {
            segments.insert(at.min(segments.len()), "**".to_owned());
        }
        pattern(&segments.join("/"))
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in "[/*a.\\PC]{0,24}", root in some_path()) {
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert_eq!(&Pattern::parse(&pattern.to_string()).unwrap(), &pattern);
            pattern.narrow(&root);
        }
    }

    #[test]
    fn covered_pattern_matches_a_subset(
        outer in some_pattern(), inner in some_pattern(), path in some_path(),
    ) {
        prop_assert!(outer.covers(&outer));
        if outer.covers(&inner) && inner.matches(&path) {
            prop_assert!(outer.matches(&path), "{} covers {}, not {}", outer, inner, path);
        }
    }

    #[test]
    fn narrowing_keeps_the_paths_below_the_root(
        pattern in some_pattern(), root in some_path(), path in some_path(), below in some_path(),
    ) {
        let narrowed = pattern.narrow(&root);
        for path in [path, root.join(&below).unwrap()] {
            let expected = pattern.matches(&path) && path.has_prefix(&root);
            prop_assert_eq!(narrowed.iter().any(|part| part.matches(&path)), expected, "{}", path);
        }
    }
}
