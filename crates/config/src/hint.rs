//! Suggestions for unknown names.

use super::table;

/// Suggests the most similar known key for an unknown one, also if only its section is wrong or missing; otherwise
/// lists the known keys.
pub(super) fn key(key: &str) -> String {
    let spellings =
        || table::entries().flat_map(|entry| entry.all_spellings()).filter(|key| !key.ends_with('*'));
    let distance = |known: &str| {
        let whole = strsim::damerau_levenshtein(key, known);
        // One more than the distance of the part, so that a match of the whole wins.
        whole.min(strsim::damerau_levenshtein(last(key), last(known)) + 1)
    };
    let near = 1 + last(key).chars().count() / 3;
    let nearest = spellings().map(|known| (distance(known), known)).min_by_key(|(distance, _)| *distance);
    let section = sections().into_iter().map(|known| (strsim::damerau_levenshtein(key, known), known)).min();
    match (nearest, section) {
        (_, Some((distance, known))) if distance <= 2 && distance < near && !key.contains('.') => {
            format!("did you mean the section `{known}`?")
        }
        (Some((distance, known)), _) if distance <= near => format!("did you mean `{known}`?"),
        _ => listed(key),
    }
}

/// Known variable that `name` is most likely a misspelling of.
pub(super) fn variable(name: &str) -> Option<&'static str> {
    let known = table::named().flat_map(|(_, names)| &names.variables).map(String::as_str);
    known
        .filter(|known| strsim::damerau_levenshtein(name, known) <= 2)
        .min_by_key(|known| strsim::damerau_levenshtein(name, known))
}

/// Lists the keys in the section of `key`, or the sections.
fn listed(key: &str) -> String {
    let section = key.rsplit_once('.').map_or("", |(section, _)| section);
    let inside: Vec<String> = table::entries()
        .flat_map(|entry| entry.all_spellings())
        .filter(|known| {
            !section.is_empty() && known.rsplit_once('.').is_some_and(|(above, _)| above == section)
        })
        .map(|known| format!("`{known}`"))
        .collect();
    if inside.is_empty() {
        let sections: Vec<String> = sections().iter().map(|known| format!("`{known}`")).collect();
        return format!("the sections are {}", sections.join(", "));
    }
    format!("the keys are {}", inside.join(", "))
}

fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> = table::entries()
        .flat_map(|entry| entry.all_spellings())
        .filter_map(|key| key.split_once('.').map(|(section, _)| section))
        .collect();
    sections.sort_unstable();
    sections.dedup();
    sections
}

fn last(dotted: &str) -> &str {
    dotted.rsplit('.').next().unwrap_or_default()
}
