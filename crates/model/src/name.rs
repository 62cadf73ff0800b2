//! Characters and segments that are refused in announced paths and track names.

/// Reason for refusing a path or track name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A C0 control, DEL or C1 control: these end lines, forge log entries and control terminals.
    #[error("control character U+{:04X}", u32::from(*.0))]
    Control(char),
    /// U+2028 or U+2029: many line readers end a line there.
    #[error("line separator U+{:04X}", u32::from(*.0))]
    LineSeparator(char),
    /// A bidirectional embedding, override or isolate (U+202A to U+202E, U+2066 to U+2069): text displayed
    /// after it, of this name or the next, is reordered.
    #[error("bidirectional control U+{:04X}", u32::from(*.0))]
    Bidi(char),
    /// A `.` or `..` segment: URLs and file systems read it as another path.
    #[error("\".\" or \"..\" segment")]
    DotSegment,
}

/// Checks a broadcast path or track name that a peer announces or asks for.
///
/// Other format characters (zero-width joiners, left-to-right and right-to-left marks, variation selectors) are
/// allowed: emoji and several scripts need them, and they neither end a line nor reorder the following text.
/// Names are compared byte by byte, so names that look alike remain distinct.
///
/// # Errors
/// The first violation found.
pub fn check(name: &str) -> Result<(), NameError> {
    if let Some(error) = name.chars().find_map(refusal) {
        return Err(error);
    }
    match name.split('/').any(|segment| matches!(segment, "." | "..")) {
        true => Err(NameError::DotSegment),
        false => Ok(()),
    }
}

fn refusal(c: char) -> Option<NameError> {
    match c {
        c if c.is_control() => Some(NameError::Control(c)),
        '\u{2028}' | '\u{2029}' => Some(NameError::LineSeparator(c)),
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Some(NameError::Bidi(c)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_of_published_clients_are_allowed() {
        for name in [
            "",
            "anon/room/alice.hang",
            "catalog.json",
            "video/hd",
            "0.m4s",
            "with space",
            "per%20cent",
            "üñí/日本",
            "emoji/😀",
            "👩\u{200d}👩\u{200d}👧",
            "می\u{200c}خواهم",
            "NFD-e\u{301}",
            "trail.",
            "...",
            ".hidden/..more",
            "a?b#c&d;e\"f\\g",
        ] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn every_control_character_is_refused() {
        for code in (0..=0x1f).chain(0x7f..=0x9f) {
            let c = char::from_u32(code).unwrap();
            assert_eq!(check(&format!("a{c}b")), Err(NameError::Control(c)), "U+{code:04X}");
        }
        assert!(check("a\u{a0}b").is_ok());
    }

    #[test]
    fn line_separators_and_bidi_controls_are_refused() {
        for c in ['\u{2028}', '\u{2029}'] {
            assert_eq!(check(&format!("a{c}")), Err(NameError::LineSeparator(c)));
        }
        for c in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            assert_eq!(check(&format!("a{c}")), Err(NameError::Bidi(c)));
        }
    }

    #[test]
    fn dot_segments_are_refused_anywhere() {
        for name in [".", "..", "a/../b", "a/./b", "../a", "a/.."] {
            assert_eq!(check(name), Err(NameError::DotSegment), "{name:?}");
        }
    }

    #[test]
    fn errors_hold_nothing_of_the_name() {
        assert_eq!(check("\u{1b}[31m").unwrap_err().to_string(), "control character U+001B");
        assert_eq!(check("..").unwrap_err().to_string(), "\".\" or \"..\" segment");
    }
}
