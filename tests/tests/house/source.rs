//! Source files of the workspace's crates, and the crates that are linked into the relay.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use regex::Regex;

/// Folders without sources of ours.
const PASSED_OVER: &[&str] = &["target", ".git", "node_modules"];

pub(crate) struct SourceFile {
    /// Path from the root of the workspace, as `crates/core/src/lib.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Whether the whole file is test code.
    pub(crate) is_test: bool,
}

impl SourceFile {
    /// Lines up to the test module at the end of the file, if there is one.
    pub(crate) fn body(&self) -> Vec<&str> {
        static OPENS: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"^\s*(pub )?mod \w+ *\{").expect("a pattern"));
        let lines: Vec<&str> = self.text.split('\n').collect();
        let is_cut = |at: usize| {
            let line = lines[at].trim();
            (line.starts_with("#[cfg(test") || line.starts_with("#[cfg(all(test"))
                && lines.get(at + 1).is_some_and(|next| OPENS.is_match(next))
        };
        let cut = (0..lines.len()).find(|at| is_cut(*at)).unwrap_or(lines.len());
        lines[..cut].to_vec()
    }

    /// Text up to the test module.
    pub(crate) fn shipped(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&self.text)
    }

    /// Folder of the crate, as `crates/core`.
    pub(crate) fn folder(&self) -> String {
        self.path.split('/').take(2).collect::<Vec<_>>().join("/")
    }
}

pub(crate) struct Tree {
    pub(crate) files: Vec<SourceFile>,
    /// Folders of the crates that the relay's binary links, as `crates/core`.
    pub(crate) linked: BTreeSet<String>,
}

impl Tree {
    /// Reads the sources of all crates.
    pub(crate) fn read() -> Self {
        let root = root();
        let is_test =
            Regex::new(r"(^|/)(tests?|benches|fuzz|examples)(/|\.rs$)|_tests?\.rs$").expect("a pattern");
        let mut paths = Vec::new();
        collect(&root.join("crates"), &mut paths);
        paths.sort();
        let files = paths.into_iter().map(|path| {
            let text = fs::read_to_string(&path).expect("a readable source");
            let path = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
            SourceFile { is_test: is_test.is_match(&path), path, text }
        });
        Self { files: files.collect(), linked: linked(&root) }
    }

    /// Files that are not test code.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| !file.is_test)
    }
}

/// Root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !PASSED_OVER.contains(&name.as_str()) {
                collect(&path, into);
            }
        } else if name.ends_with(".rs") {
            into.push(path);
        }
    }
}

/// Follows the normal dependencies from the relay's package.
fn linked(root: &Path) -> BTreeSet<String> {
    let mut packages = BTreeMap::new();
    for entry in fs::read_dir(root.join("crates")).expect("the crates") {
        let folder = entry.expect("an entry").path();
        let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        let manifest: toml::Table = manifest.parse().expect("a manifest");
        let name = manifest["package"]["name"].as_str().expect("a name").to_owned();
        let uses = manifest.get("dependencies").and_then(toml::Value::as_table);
        let uses: Vec<String> = uses.into_iter().flat_map(|table| table.keys().cloned()).collect();
        let folder = folder.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        packages.insert(name, (folder, uses));
    }
    let mut linked = BTreeSet::new();
    let mut open = vec!["moq-relay".to_owned()];
    while let Some(name) = open.pop() {
        if let Some((folder, uses)) = packages.get(&name)
            && linked.insert(folder.clone())
        {
            open.extend(uses.iter().cloned());
        }
    }
    assert!(linked.len() > 5, "the relay's dependencies were not read: {linked:?}");
    linked
}
