//! The tables of `docs/configuration.md`.

use std::fmt::Write;

use relay_config::table::{Entry, KeySupport, entries};

/// Returns the part of `docs/configuration.md` between its marks.
pub(crate) fn markdown() -> String {
    let mut page = String::from(
        "## Keys that are obeyed\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n",
    );
    for entry in entries() {
        if let KeySupport::Used(default) = entry.status {
            let default = if default.contains(['"']) || default == "true" {
                format!("`{default}`")
            } else {
                default.to_owned()
            };
            let _ = writeln!(
                page,
                "| `{}` | {} | {default} | {} |",
                entry.key,
                entry.kind.written(),
                entry.meaning
            );
        }
    }
    page += "\n## Other names of them\n\nFlags and variables have all names that the spellings of a file give \
             them, too.\n\n| key | flag | variable | also in a file as |\n| --- | --- | --- | --- |\n";
    for entry in entries().filter(|entry| entry.is_used()) {
        let names = entry.names();
        let (flag, variable) = (names.flag(), names.variable());
        let _ = writeln!(page, "| `{}` | `{flag}` | `{variable}` | {} |", entry.key, ticked(entry.spellings));
    }
    page += "\n## Keys that are accepted with a warning\n\nThey change nothing here.\n\n";
    rest(&mut page, "why", |status| if let KeySupport::Idle(why) = status { Some(why) } else { None });
    page += "\n## Keys that are refused\n\nWithout them the relay would be another one than the file asks for.\n\n";
    rest(&mut page, "why, and what to do", |status| match status {
        KeySupport::Refused(instead) => Some(instead),
        _ => None,
    });
    page
}

/// Writes the table of the entries for which `pick` returns a text.
fn rest(page: &mut String, title: &str, pick: impl Fn(KeySupport) -> Option<&'static str>) {
    let _ = writeln!(page, "| key | also as | what it asks for | {title} |\n| --- | --- | --- | --- |");
    for entry in entries() {
        if let (Some(said), Entry { key, spellings, meaning, .. }) = (pick(entry.status), entry) {
            let _ = writeln!(page, "| `{key}` | {} | {meaning} | {said} |", ticked(spellings));
        }
    }
}

fn ticked(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
