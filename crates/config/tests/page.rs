//! Promise: the tables of `docs/configuration.md` match the code.
//!
//! `UPDATE_GOLDEN=1 cargo test -p relay-config --test page` rewrites them.

#![allow(missing_docs)]

use std::{env, fs, path::PathBuf};

#[path = "page/markdown.rs"]
mod markdown;

use markdown::markdown;

const BEGIN: &str = "<!-- tables: begin (made by relay_config::table) -->\n";
const END: &str = "<!-- tables: end -->\n";

#[test]
fn configuration_page_matches_the_tables() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = fs::read_to_string(&file).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the tables have a beginning");
    let (_, after) = rest.split_once(END).expect("the tables have an end");
    let expected = format!("{before}{BEGIN}\n{}\n{END}{after}", markdown().trim());
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &expected).unwrap();
        return;
    }
    assert!(page == expected, "docs/configuration.md differs from the tables; UPDATE_GOLDEN=1 rewrites it");
}
