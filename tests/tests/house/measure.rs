//! Counts over the sources: sizes, long functions, panicking calls, names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use regex::Regex;

use crate::source::{SourceFile, Tree};

/// Longest function, in lines.
const FUNCTION: usize = 70;
/// Longest name of a test, in characters.
const TEST_NAME: usize = 60;

/// Crates and folders that may name a version of moq-lite: the codec, the dispatch over dialects, and the clients.
const LITE: &[&str] = &[
    "crates/wire/",
    "crates/session/src/dialect",
    "crates/client/",
    "crates/cli/",
    "crates/load/",
    "crates/bench/",
    "crates/sim/",
    "crates/testkit/",
];

const PANICKING: &str = r"\.unwrap\(\)|\.expect\(|\bpanic!|\bunreachable!|\btodo!|\bunimplemented!";
const UNFINISHED: &str = r"\btodo!|\bunimplemented!|\bTODO\b|\bFIXME\b";
const VISIBILITY: &str = r"(?:pub(?:\([^)]*\))? )?";

/// A place in the tree that counts against a figure.
struct Finding {
    figure: &'static str,
    place: String,
}

#[derive(Default)]
pub(crate) struct Figures {
    values: BTreeMap<&'static str, f64>,
    /// Number of fields and name of each struct, most first.
    pub(crate) fields: Vec<(usize, String)>,
    /// Number of methods and name of each type, most first, by crate.
    pub(crate) methods: Vec<(usize, String)>,
    findings: Vec<Finding>,
}

impl Figures {
    pub(crate) fn of(tree: &Tree) -> Self {
        let mut figures = Self::default();
        figures.sizes(tree);
        figures.functions(tree);
        figures.docs(tree);
        figures.types(tree);
        figures.tests(tree);
        figures.count(
            "uses of lite outside its dialect",
            r"\blite::|::lite\b",
            tree.shipped().filter(|file| {
                tree.linked.contains(&file.folder())
                    && !LITE.iter().any(|folder| file.path.starts_with(folder))
            }),
        );
        figures.count(
            "panicking calls in the binary",
            PANICKING,
            tree.shipped().filter(|file| tree.linked.contains(&file.folder())),
        );
        figures.unfinished(tree);
        figures
    }

    /// Value of a figure.
    pub(crate) fn value(&self, name: &str) -> f64 {
        *self.values.get(name).unwrap_or_else(|| panic!("no figure {name}"))
    }

    /// Places that count against the figures that are counted by place.
    pub(crate) fn evidence(&self) -> String {
        let lines = self.findings.iter().map(|finding| format!("{}: {}", finding.figure, finding.place));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn set(&mut self, figure: &'static str, value: f64) {
        self.values.insert(figure, value);
    }

    fn sizes(&mut self, tree: &Tree) {
        let mut sizes: Vec<usize> = tree.shipped().map(|file| file.body().len()).collect();
        sizes.sort_unstable();
        let middle = (sizes[(sizes.len() - 1) / 2] + sizes[sizes.len() / 2]) / 2;
        let code: usize = sizes.iter().sum();
        let total: usize = tree.files.iter().map(|file| file.text.split('\n').count()).sum();
        self.set("files", count(sizes.len()));
        self.set("non-test lines", count(code));
        self.set("median file", count(middle));
        self.set("p90 file", count(sizes[sizes.len() * 9 / 10]));
        self.set("largest file", count(*sizes.last().expect("a file")));
        self.set("test share", (100.0 * count(total - code) / count(total)).round());
    }

    /// Counts functions and those that are too long, by their braces.
    fn functions(&mut self, tree: &Tree) {
        let start =
            Regex::new(r"^\s*(pub(\([^)]*\))? )?(const )?(async )?(unsafe )?fn \w+").expect("a pattern");
        let noise = Regex::new(r#""(\\.|[^"\\])*"|//.*|'[{}]'"#).expect("a pattern");
        let (mut functions, mut long) = (0, 0);
        for file in tree.shipped() {
            let body = file.body();
            let mut at = 0;
            while at < body.len() {
                if start.is_match(body[at]) {
                    let end = end_of(&body, at, &noise);
                    functions += 1;
                    if end + 1 - at > FUNCTION {
                        long += 1;
                        self.findings.push(Finding {
                            figure: "functions over 70 lines",
                            place: format!("{} {}: {} lines", file.path, body[at].trim(), end + 1 - at),
                        });
                    }
                }
                at += 1;
            }
        }
        self.set("functions", count(functions));
        self.set("functions over 70 lines", count(long));
    }

    /// Counts first lines of doc comments.
    fn docs(&mut self, tree: &Tree) {
        let doc = Regex::new(r"^\s*//[/!] ?(.*)").expect("a pattern");
        let question =
            Regex::new(r"^(What|Who|Whose|Whom|Whoever|Whatever|Why|How|Where|Which)\b").expect("a pattern");
        let (mut docs, mut opening) = (0, 0);
        for file in tree.shipped() {
            let mut inside = false;
            for (at, line) in file.shipped().split('\n').enumerate() {
                let found = doc.captures(line);
                if let Some(found) = found.as_ref().filter(|_| !inside) {
                    docs += 1;
                    if question.is_match(&found[1]) {
                        opening += 1;
                        self.findings.push(Finding {
                            figure: "doc comments that open with a question word",
                            place: format!("{}:{}", file.path, at + 1),
                        });
                    }
                }
                inside = found.is_some();
            }
        }
        self.set("doc comments", count(docs));
        let share = 100.0 * count(opening) / count(docs);
        self.set("doc comments that open with a question word", (share * 10.0).round() / 10.0);
    }

    /// Counts type names, fields of structs and methods of types.
    fn types(&mut self, tree: &Tree) {
        let name =
            Regex::new(&format!(r"(?m)^\s*{VISIBILITY}(?:struct|enum|trait) (\w+)")).expect("a pattern");
        let record =
            Regex::new(&format!(r"(?ms)^{VISIBILITY}struct (\w+)[^;{{]*\{{\n(.*?)^\}}")).expect("a pattern");
        let field = Regex::new(&format!(r"(?m)^    {VISIBILITY}\w+:")).expect("a pattern");
        let block = Regex::new(r"(?ms)^impl(?:<[^{]*?>)? (?:\w+(?:<[^{]*>)? for )?(\w+)[^{]*\{\n(.*?)^\}")
            .expect("a pattern");
        let method =
            Regex::new(&format!(r"(?m)^    {VISIBILITY}(?:const )?(?:async )?fn ")).expect("a pattern");
        let (mut types, mut methods) = (Vec::new(), BTreeMap::<_, usize>::new());
        for file in tree.shipped() {
            let text = file.shipped();
            types.extend(name.captures_iter(text).map(|found| found[1].to_owned()));
            for found in record.captures_iter(text) {
                self.fields.push((field.find_iter(&found[2]).count(), found[1].to_owned()));
            }
            for found in block.captures_iter(text) {
                *methods.entry((file.folder(), found[1].to_owned())).or_default() +=
                    method.find_iter(&found[2]).count();
            }
        }
        self.methods = methods.into_iter().map(|((_, name), methods)| (methods, name)).collect();
        self.methods.sort_by(|a, b| b.cmp(a));
        self.fields.sort_by(|a, b| b.cmp(a));
        let distinct: BTreeSet<&String> = types.iter().collect();
        self.set("type names", count(types.len()));
        self.set("distinct type names", (100.0 * count(distinct.len()) / count(types.len())).round());
    }

    fn tests(&mut self, tree: &Tree) {
        let test = Regex::new(r"#\[(?:tokio::)?test\][^{]*?fn (\w+)").expect("a pattern");
        let (mut tests, mut long) = (0, 0);
        for file in &tree.files {
            for found in test.captures_iter(&file.text) {
                tests += 1;
                if found[1].chars().count() > TEST_NAME {
                    long += 1;
                    let place = format!("{} {}", file.path, &found[1]);
                    self.findings.push(Finding { figure: "test names over 60 characters", place });
                }
            }
        }
        self.set("test functions", count(tests));
        self.set("test names over 60 characters", count(long));
    }

    /// Counts a pattern in the code of files, outside comments.
    fn count<'a>(
        &mut self,
        figure: &'static str,
        pattern: &str,
        files: impl Iterator<Item = &'a SourceFile>,
    ) {
        let pattern = Regex::new(pattern).expect("a pattern");
        let mut total = 0;
        for file in files {
            for (at, line) in file.body().into_iter().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                let found = pattern.find_iter(code).count();
                total += found;
                if found > 0 {
                    let place = format!("{}:{}: {}", file.path, at + 1, line.trim());
                    self.findings.push(Finding { figure, place });
                }
            }
        }
        self.set(figure, count(total));
    }

    /// Counts marks of unfinished code, in comments and tests too.
    fn unfinished(&mut self, tree: &Tree) {
        let pattern = Regex::new(UNFINISHED).expect("a pattern");
        let total = tree.files.iter().map(|file| pattern.find_iter(&file.text).count()).sum();
        self.set("unfinished code", count(total));
    }
}

/// Last line of the function that begins at line `start`.
fn end_of(body: &[&str], start: usize, noise: &Regex) -> usize {
    let (mut depth, mut opened, mut at) = (0_i64, false, start);
    while at < body.len() {
        let code = noise.replace_all(body[at], "");
        let braces = |brace| i64::try_from(code.matches(brace).count()).unwrap_or(i64::MAX);
        depth += braces('{') - braces('}');
        opened |= code.contains('{');
        if (opened && depth <= 0) || (!opened && code.contains(';')) {
            break;
        }
        at += 1;
    }
    at
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "counts of lines")]
fn count(number: usize) -> f64 {
    number as f64
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.values {
            writeln!(f, "{name}: {value}")?;
        }
        writeln!(f, "most fields: {:?}", &self.fields[..6])?;
        write!(f, "most methods: {:?}", &self.methods[..6])
    }
}
