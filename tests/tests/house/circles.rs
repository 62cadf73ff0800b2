//! Circles between the top-level modules of a crate, by the paths in their code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    fs,
    sync::LazyLock,
};

use regex::Regex;

use crate::source::{SourceFile, Tree, root};

/// Modules that each module of a crate names.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Top-level modules of one crate that all reach each other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Circle {
    /// Folder name below `crates`.
    package: String,
    modules: BTreeSet<String>,
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modules: Vec<&str> = self.modules.iter().map(String::as_str).collect();
        write!(f, "{}: {}", self.package, modules.join(" "))
    }
}

/// Line of the list of allowed circles.
pub(crate) struct Allowed {
    pub(crate) circle: Circle,
}

impl Allowed {
    /// Whether the circle has no module beyond the listed ones.
    pub(crate) fn covers(&self, found: &Circle) -> bool {
        self.circle.package == found.package && found.modules.is_subset(&self.circle.modules)
    }
}

/// Reads `tests/house_circles.txt`: lines of `CRATE: MODULE... | REASON`.
pub(crate) fn listed() -> Vec<Allowed> {
    let text = fs::read_to_string(root().join("tests/house_circles.txt")).expect("the list of circles");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let (circle, reason) = line.split_once('|').expect("a reason");
        assert!(!reason.trim().is_empty(), "{line} has no reason");
        let (package, modules) = circle.split_once(':').expect("a crate");
        let modules = modules.split_whitespace().map(str::to_owned).collect();
        Allowed { circle: Circle { package: package.trim().to_owned(), modules } }
    };
    lines.map(read).collect()
}

/// Finds the circles of all crates.
pub(crate) fn found(tree: &Tree) -> Vec<Circle> {
    let mut circles = Vec::new();
    for (package, graph) in graphs(tree) {
        let reached: BTreeMap<&String, BTreeSet<&String>> =
            graph.keys().map(|module| (module, reach(&graph, module))).collect();
        let mut done = BTreeSet::new();
        for module in graph.keys() {
            let modules: BTreeSet<String> = reached[module]
                .iter()
                .filter(|other| reached.get(**other).is_some_and(|back| back.contains(module)))
                .map(|other| (*other).clone())
                .collect();
            if modules.len() > 1 && !done.contains(module) {
                done.extend(modules.iter().cloned());
                circles.push(Circle { package: package.clone(), modules });
            }
        }
    }
    circles
}

/// Lists the edges inside a circle, to show where it can be cut.
pub(crate) fn edges(tree: &Tree, circle: &Circle) -> String {
    let graphs = graphs(tree);
    let mut text = String::new();
    for module in &circle.modules {
        let uses: Vec<&String> = graphs[&circle.package][module].intersection(&circle.modules).collect();
        writeln!(text, "    {module} uses {uses:?}").expect("text");
    }
    text
}

/// Modules reachable from `start` by at least one edge.
fn reach<'a>(graph: &'a Graph, start: &str) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&String> = graph[start].iter().collect();
    while let Some(module) = open.pop() {
        if reached.insert(module) {
            open.extend(graph.get(module).into_iter().flatten());
        }
    }
    reached
}

/// Graph of each crate, by its folder below `crates`.
fn graphs(tree: &Tree) -> BTreeMap<String, Graph> {
    let mut crates: BTreeMap<String, Vec<(Vec<String>, String)>> = BTreeMap::new();
    for file in tree.shipped() {
        if let Some((package, module)) = module_of(file) {
            crates.entry(package).or_default().push((module, code_of(file)));
        }
    }
    crates.into_iter().map(|(package, files)| (package, graph(&files))).collect()
}

/// Crate and module path of a source file of a library; an empty path is the root.
fn module_of(file: &SourceFile) -> Option<(String, Vec<String>)> {
    let rest = file.path.strip_prefix("crates/")?;
    let (package, rest) = rest.split_once("/src/")?;
    let mut module: Vec<String> = rest.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module[0] == "bin" {
        return None;
    }
    if module.last().is_some_and(|last| last == "mod")
        || (module.len() == 1 && (module[0] == "lib" || module[0] == "main"))
    {
        module.pop();
    }
    Some((package.to_owned(), module))
}

/// Code of a file without its test module, comments and texts.
fn code_of(file: &SourceFile) -> String {
    static NOISE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"'(\\.|[^'\\])'|"(\\.|[^"\\])*"|//[^\n]*"#).expect("a pattern"));
    NOISE.replace_all(&file.body().join("\n"), "").into_owned()
}

fn graph(files: &[(Vec<String>, String)]) -> Graph {
    let modules: BTreeSet<&str> =
        files.iter().filter_map(|(path, _)| path.first()).map(String::as_str).collect();
    let mut exported = BTreeMap::new();
    let use_item = Regex::new(r"\buse ([^;]*);").expect("a pattern");
    for (_, code) in files.iter().filter(|(path, _)| path.is_empty()) {
        for item in use_item.captures_iter(code) {
            exports(&item[1], &modules, &mut exported);
        }
    }
    let path = Regex::new(r"\b(crate|super(?:\s*::\s*super)*)\s*::\s*").expect("a pattern");
    let mut graph: Graph = modules.iter().map(|module| ((*module).to_owned(), BTreeSet::new())).collect();
    for (module, code) in files.iter().filter(|(path, _)| !path.is_empty()) {
        let mut named = BTreeSet::new();
        for found in path.captures_iter(code) {
            let start = &found[1];
            let is_root = start == "crate" || start.matches("super").count() == module.len();
            if is_root {
                named.extend(first_names(&code[found.get(0).expect("a match").end()..]));
            }
        }
        let uses = graph.entry(module[0].clone()).or_default();
        for name in named {
            let used =
                if modules.contains(name) { Some(name) } else { exported.get(name).map(String::as_str) };
            uses.extend(used.filter(|used| *used != module[0]).map(str::to_owned));
        }
    }
    graph
}

/// Records the names that the root takes out of its modules.
fn exports(item: &str, modules: &BTreeSet<&str>, exported: &mut BTreeMap<String, String>) {
    let item = item.trim().trim_start_matches("crate::").trim_start_matches("self::");
    if let Some(group) = item.strip_prefix('{') {
        for part in parts(group.trim_end_matches('}')) {
            exports(part, modules, exported);
        }
        return;
    }
    let Some((module, rest)) = item.split_once("::") else { return };
    if modules.contains(module) {
        static NAME: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"(\w+)\s*(?:[,}]|$)").expect("a pattern"));
        exported.extend(NAME.captures_iter(rest).map(|found| (found[1].to_owned(), module.to_owned())));
    }
}

/// First name of a path, or of each path of a group in braces.
fn first_names(rest: &str) -> Vec<&str> {
    let name =
        |path: &'_ str| path.len() - path.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len();
    let Some(group) = rest.strip_prefix('{') else { return vec![&rest[..name(rest)]] };
    let mut depth = 1;
    let end = group.char_indices().find(|(_, c)| {
        depth += i32::from(*c == '{') - i32::from(*c == '}');
        depth == 0
    });
    let group = &group[..end.map_or(group.len(), |(at, _)| at)];
    parts(group).into_iter().map(|part| &part[..name(part)]).collect()
}

/// Parts of a group, split at the commas that are in no inner group.
fn parts(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            found.push(group[start..at].trim());
            start = at + 1;
        }
    }
    found.push(group[start..].trim());
    found
}
