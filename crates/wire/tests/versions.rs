//! `docs/versions.md` agrees with the code.

use std::{fs, path::PathBuf};

use relay_wire::lite::{Version, carries};

const BEGIN: &str = "<!-- table: begin (made by relay_wire::lite::carries) -->\n";
const END: &str = "<!-- table: end -->";

fn page() -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/versions.md");
    fs::read_to_string(file).unwrap()
}

#[test]
fn the_page_about_versions_holds_the_table_as_it_is() {
    let page = page();
    let (_, rest) = page.split_once(BEGIN).expect("the table has a beginning");
    let (table, rest) = rest.split_once(END).expect("the table has an end");
    assert!(!rest.contains("<!-- table"), "one table");
    let expected = carries::markdown();
    assert!(
        table.trim() == expected.trim(),
        "docs/versions.md should hold, between its marks:\n\n{expected}"
    );
}

#[test]
fn the_page_about_versions_names_every_version() {
    let page = page();
    for version in Version::every() {
        assert!(page.contains(&format!("| {} |", version.name())), "{version:?}");
    }
}
